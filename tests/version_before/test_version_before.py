"""Files that the version before wrote are read, and mean the same; README.md says how they were made."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import softprompt
from softprompt.artifacts import artifact as artifacts
from softprompt.artifacts.interop.kv_cache.folder import Folder
from softprompt.cli import main
from softprompt.config.load import load_recipe
from softprompt.data.collate import collate
from softprompt.lm.apply import injection_for

pytestmark = pytest.mark.slow

FILES = Path(__file__).parent / "files"
ARTIFACTS = ("generated", "lora", "prefix", "prompt", "table")


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (FILES / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """A copy to work in, as the working directory."""
    shutil.copytree(FILES, tmp_path / "files")
    monkeypatch.chdir(tmp_path / "files")
    return tmp_path / "files"


def logits(artifact: Path) -> torch.Tensor:
    """Logits [2, T, V] of two dev rows, one of each style, as make.py computed them."""
    tuned = softprompt.open_prompt(artifact, model=str(FILES / "model"))
    batch = collate(tuned.encoder.encode_rows(rows("dev")[1:3]))
    with torch.no_grad():
        return tuned.lm.logits(batch, injection_for(tuned.lm, tuned.method, batch))


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return load_file(FILES / "expected.safetensors")


def test_there_is_one_of_each(expected):
    assert {path.name for path in (FILES / "artifacts").iterdir()} == set(ARTIFACTS)
    assert set(expected) == {*ARTIFACTS, "run"}
    differ = [expected[name] for name in ("prompt", "prefix", "generated", "lora", "run")]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(differ) for b in differ[:i])


@pytest.mark.parametrize("name", ARTIFACTS)
def test_an_artifact_gives_the_same_logits(name, expected):
    assert torch.allclose(logits(FILES / "artifacts" / name), expected[name], atol=1e-5)


def test_a_recipe_is_read():
    recipe = load_recipe(FILES / "recipe.yaml", ["method.length=5"])
    assert recipe.method.options() == {"length": 5} and recipe.train.lr == 0.01
    assert recipe.task.labels == ["good", "bad"] and Path(recipe.model.id) == FILES / "model"


def test_compiled_prompts_are_read_and_verified():
    folder = Folder(FILES / "compiled")
    assert set(folder.names()) == {"prompt", "table:fact", "table:joke"}
    vectors = load_file(FILES / "artifacts/table/prompt.safetensors")
    for name in ("fact", "joke"):
        tensors = folder.load(folder.entry(f"table:{name}"))  # refuses content that does not match its hash
        assert torch.equal(tensors["after"], vectors[f"{name}/after/vectors"])
    prefix = folder.load(folder.entry("prompt"))
    assert {key: tuple(t.shape) for key, t in prefix.items()} == dict.fromkeys(
        ("k.0", "v.0", "k.1", "v.1"), (2, 1, 4)
    )


def test_prompts_compiled_again_get_the_same_content(files):
    """The keys and values of the old folder are those that the present code computes."""
    old = Folder(files / "compiled")
    arguments = ["artifacts/prompt", "artifacts/table", "--out", "again", "--model", "model"]
    assert main(["compile", *arguments]) == 0
    new = Folder(files / "again")
    for name in old.names():
        before, now = old.load(old.entry(name)), new.load(new.entry(name))
        assert set(before) == set(now)
        assert all(torch.allclose(before[key], now[key], atol=1e-5) for key in now)
    # the old folder takes another prompt of the same base
    assert main(["compile", "artifacts/prompt", "--out", "compiled", "--model", "model"]) == 0


def test_an_interrupted_run_resumes(files, expected, capsys):
    """It ends where the old code's uninterrupted run ended, to the rounding of another machine."""
    assert main(["tune", "recipe.yaml", "output=run"]) == 0
    assert "step 3" in capsys.readouterr().err
    assert artifacts.load(files / "run").manifest["training"]["steps"] == 6
    assert torch.allclose(logits(files / "run"), expected["run"], atol=1e-4)
    assert main(["tune", "recipe.yaml", "output=new"]) == 0
    assert torch.allclose(logits(files / "new"), expected["run"], atol=1e-4)


def test_a_comparison_is_read_and_reported(files, capsys):
    lines = [json.loads(line) for line in Path("comparison/results.jsonl").read_text().splitlines()]
    scores = [line for line in lines if line["kind"] == "score" and line["split"] == "test"]
    assert {line["contestant"] for line in scores} == {"prompt-tuning/after", "zero-shot"}
    assert main(["report", "comparison", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] > 10_000
    page = Path("comparison/report.md").read_text(encoding="utf-8")
    for line in scores:
        accuracy = line["metrics"]["accuracy"]
        assert line["contestant"] in page
        assert re.search(rf"{100 * accuracy['value']:.1f} %? ?\({100 * accuracy['low']:.1f} … ", page)
