"""The example's package, installed in a folder: command line, a spawned worker, the server, and its page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from softprompt import methods
from softprompt.artifacts import artifact as artifacts
from softprompt.cli import main
from softprompt.compare.measures.constraints import CONSTRAINTS
from softprompt.compare.report import read
from softprompt.errors import SoftPromptError
from softprompt.evaluation.metrics import METRICS
from softprompt.lm.loading import load
from softprompt.serve.registry import Registry

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_method"
NAME = "low-rank-prompt"


def install(place: Path, package: str, version: str, points: dict[str, dict[str, str]]) -> None:
    """Write the metadata that pip writes for a package."""
    info = place / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    groups = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for group, of in points.items()]
    (info / "entry_points.txt").write_text("\n".join(groups))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder on the path with the example and a package that cannot be imported; removed again."""
    place = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install(place, project["name"], project["version"], project["entry-points"])
    install(place, "torn", "0.3", {"softprompt.methods": {"torn": "module_that_is_missing:Torn"}})
    shutil.copy(EXAMPLE / "low_rank_prompt.py", place)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        for registry in (methods.METHODS, METRICS, CONSTRAINTS):
            registry.refresh()
        yield place
    sys.modules.pop("low_rank_prompt", None)
    for registry in (methods.METHODS, METRICS, CONSTRAINTS):
        registry.refresh()


@pytest.fixture(scope="module")
def project(site, tmp_path_factory, model_folder) -> Path:
    """Rows, a recipe, and the artifact of the example's method that `tune` made of it in `out`."""
    folder = tmp_path_factory.mktemp("project")
    words = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss"]
    rows = [{"input": f"{word} {i}", "target": ("good", "bad")[i % 2]} for i, word in enumerate(words * 3)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "model": str(model_folder),
        "data": {"train": "rows.jsonl"},
        "task": {"kind": "generation", "max_new_tokens": 3, "metrics": ["perplexity", "brevity"]},
        "train": {"steps": 2, "batch_size": 4, "dtype": "float32"},
        "output": str(folder / "out"),
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["tune", str(folder / "recipe.yaml"), f"method={NAME}", "length=3", "method.rank=2"]) == 0
    return folder


@pytest.mark.process
def test_a_new_process_lists_it_and_what_is_broken(site):
    path = os.pathsep.join([str(site), str(ROOT / "src")])
    command = [sys.executable, "-m", "softprompt", "methods", "--json"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=True)
    listed = json.loads(done.stdout)
    assert listed["methods"][NAME]["package"] == "low-rank-prompt 0.1.0"
    assert listed["methods"][NAME]["options"]["rank"] == 4 and listed["methods"]["none"]["package"] is None
    assert list(listed["broken"]) == ["torn"] and "No module named" in listed["broken"]["torn"]["why"]


@pytest.mark.whole
def test_tune_and_generate(project, capsys):
    manifest = artifacts.load(project / "out").manifest
    assert manifest["distribution"] == {
        "name": NAME,
        "version": "0.1.0",
        "object": "low_rank_prompt:LowRankPrompt",
    }
    assert manifest["options"]["rank"] == 2 and 0 <= manifest["dev"]["metrics"]["brevity"] <= 1
    capsys.readouterr()
    assert main(["generate", str(project / "out"), "sun 1", "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")
    assert main(["tune", str(project / "recipe.yaml"), "method=torn"]) == 1
    assert "torn 0.3 cannot be used" in capsys.readouterr().err


@pytest.mark.whole
def test_the_server_opens_its_artifact(project, model_folder):
    """Without the package the same artifact is an error that says what to install."""
    served = Registry(project, load(str(model_folder), dtype="float32"))
    assert served.get("out").tuned.artifact.manifest["method"] == NAME
    origin, methods.METHODS._points = methods.METHODS._points, {}
    try:
        with pytest.raises(SoftPromptError) as caught:
            artifacts.load(project / "out").check_method()
        assert caught.value.fix == "pip install 'low-rank-prompt==0.1.0'"
    finally:
        methods.METHODS._points = origin


@pytest.mark.whole
@pytest.mark.process
def test_a_comparison_in_a_spawned_worker(project):
    folder = project / "compare"
    settings = [f"methods=[{NAME}/after, zero-shot]", "rates=[1e-2]", "seeds=1", "serving=false", "workers=1"]
    settings += ["control=[adherence]", "control_rows=4", "constraint={max_lines: 1}", "dev_limit=4"]
    command = ["compare", str(project / "recipe.yaml"), *settings, f"compare.output={folder}"]
    assert main(command) == 0
    found = read.comparison(folder)
    assert not [trial.error for trial in found.trials if trial.error]
    assert {score.contestant for score in found.scores} == {f"{NAME}/after", "zero-shot"}
    assert any("brevity" in score.metrics for score in found.scores)
    assert found.study.directions == {"perplexity": False, "brevity": True}
    assert [control.measure for control in found.controls] == ["adherence"]


@pytest.mark.whole
def test_the_page_runs():
    page = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 2 and page.index("```python") < 30
    names: dict = {}
    try:
        for block in blocks:
            exec(block, names)
    finally:
        methods.METHODS.pop("scaled-prompt", None)


def test_the_page_has_the_contracts_and_the_entry_points():
    from softprompt.testing import CHECKS

    page = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == list(CHECKS)
    package = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    for block in re.findall(r"```toml\n(.*?)```", page, re.S):
        assert all(line in package for line in block.splitlines())


LAZY = """
import sys
from importlib import metadata
from pathlib import Path
from softprompt.cli.opening import open_recipe
from softprompt.errors import SoftPromptError
from softprompt.methods.keyword_arguments import sections

imported, load = [], metadata.EntryPoint.load
metadata.EntryPoint.load = lambda point: imported.append(point.name) or load(point)
name, path = sys.argv[1], Path(sys.argv[2])
for method in ("prefix-tuning", name):
    read = open_recipe(path, ["length=3", "steps=2", "base.rank=4", f"method={method}"])
    assert read.method.options() == {"length": 3}
    assert sections({"length": 3, "steps": 2}, "tune")["method"] == {"length": 3}
    assert imported == [name] * (method == name), imported
try:
    open_recipe(path, ["lenght=3"])
except SoftPromptError as error:
    assert "did you mean 'method.length'" in str(error) and imported == [name, "torn"]
else:
    raise AssertionError
"""


@pytest.mark.process
def test_a_package_is_imported_where_its_method_is_named(site, tmp_path):
    """A new process is without the tests' checks of types, which read every list."""
    (tmp_path / "recipe.yaml").write_text("{model: smollm2, data: rows.jsonl, task: generation}")
    path = os.pathsep.join([str(site), str(ROOT / "src")])
    command = [sys.executable, "-c", LAZY, NAME, str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
