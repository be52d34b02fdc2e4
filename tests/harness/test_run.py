"""Tasks run through `lm-eval`, through `softprompt eval --harness`, and against the server."""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager
from tests.harness.conftest import ROWS
from tests.harness.test_model import naive, vectors_of
from tests.serve.http.conftest import serving

import softprompt
from softprompt.cli import main
from softprompt.harness import run as run_module
from softprompt.harness import tasks as task_module
from softprompt.harness.model import SoftPromptLM

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def base(model_folder):
    return softprompt.load(str(model_folder), dtype="float32")


@pytest.fixture(scope="module")
def evaluated(task_folder):
    """`evaluated(model, tasks, **arguments)`: the harness's results, in this process."""
    manager = TaskManager(include_path=str(task_folder), include_defaults=False)

    def run(model: Any, tasks: list[str], model_args: Any = None) -> dict[str, Any]:
        return simple_evaluate(
            model=model, model_args=model_args, tasks=tasks, task_manager=manager, bootstrap_iters=0
        )["results"]

    return run


def value(results: dict[str, Any], task: str, metric: str) -> float:
    return results[task][f"{metric},none"]


def test_the_plug_in_is_registered_once():
    """As the harness finds plug-ins, and by the package for its versions that find none."""
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    top = Path(__file__).parents[2]
    project = tomllib.loads((top / "pyproject.toml").read_text())["project"]
    target = project["entry-points"]["lm_eval.models"]["softprompt"]
    assert EntryPoint("softprompt", target, "lm_eval.models").load() is SoftPromptLM
    assert get_model("softprompt") is SoftPromptLM
    assert f'TARGET = "{target}"' in (top / "connectors/lm_eval/src/softprompt_lm_eval.py").read_text()


@pytest.mark.process
def test_the_command_of_the_harness_knows_the_plug_in(classifier, base, task_folder, tmp_path):
    command = ["lm-eval", "--model", "softprompt", "--model_args", f"artifact={classifier},dtype=float32"]
    command += [
        "--tasks",
        "films",
        "--include_path",
        task_folder,
        "--output_path",
        tmp_path,
        "--device",
        "cpu",
    ]
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | path, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = tmp_path.rglob("results_*.json")
    written = json.loads(file.read_text())
    accuracy = softprompt.open_prompt(classifier, base).evaluate(ROWS).metrics["accuracy"].value
    assert value(written["results"], "films", "acc") == pytest.approx(accuracy)
    assert written["config"]["prompt"] == "default" and written["config"]["method"] == "prompt-tuning"


def test_eval_runs_tasks(classifier, base, task_folder, tmp_path, capsys):
    to = tmp_path / "deep" / "results.json"
    arguments = [
        "--include-path",
        str(task_folder),
        "--output",
        str(to),
        "--records",
        str(tmp_path / "r.jsonl"),
    ]
    assert main(["eval", str(classifier), "--harness", "films, texts", *arguments]) == 0
    accuracy = softprompt.open_prompt(classifier, base).evaluate(ROWS).metrics["accuracy"].value
    results = json.loads(to.read_text())["results"]
    assert value(results, "films", "acc") == pytest.approx(accuracy)
    assert "|films" in capsys.readouterr().out
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 2 * len(ROWS)


def test_the_plain_model_without_an_artifact(model_folder, task_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", str(model_folder), "--include-path", str(task_folder), "--limit", "2", "--json"]
    assert main(["eval", "--harness", "films", *arguments]) == 0
    reply = json.loads(capsys.readouterr().out)
    assert reply["method"] == "none" and Path(reply["output"]).exists()
    assert Path(reply["output"]).parent == Path("harness")


@pytest.mark.whole
def test_the_server_gives_the_same_results(
    model_folder, classifier, writer, base, task_folder, evaluated, tmp_path
):
    """By the harness's own client of `/v1/completions`, with the prompt's name as the model."""
    tasks = ["films", "answers", "texts"]
    wanted = evaluated(SoftPromptLM(str(writer), lm=base), tasks)
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")
    with serving(base, writer.parent, model_name="tiny", max_tokens=2**14) as running:
        to = {"model": writer.name, "base_url": f"{running.url}/v1/completions", "max_length": 200}
        to |= {"tokenizer": str(tmp_path / "tokenizer"), "max_retries": 1, "batch_size": 4}
        found = evaluated("local-completions", tasks, to)
    for task, metric in (("films", "acc"), ("answers", "exact_match"), ("texts", "byte_perplexity")):
        assert value(found, task, metric) == pytest.approx(value(wanted, task, metric), rel=1e-5)


def test_perplexity_is_that_of_the_likelihoods(writer, base, evaluated):
    """Per byte, of all texts, each after the end token under the prompt."""
    vectors = vectors_of(writer, "before")
    first, _ = naive(base, "", vectors, "<end>")
    total = sum(naive(base, "", vectors, f"<end>{row['text']}")[0] - first for row in ROWS)
    count = sum(len(row["text"].encode()) for row in ROWS)
    found = evaluated(SoftPromptLM(str(writer), lm=base), ["texts"])
    assert value(found, "texts", "byte_perplexity") == pytest.approx(math.exp(-total / count), rel=1e-5)


class TestErrors:
    @pytest.fixture
    def message(self, capsys):
        def of(*arguments: object) -> str:
            assert main(["eval", *map(str, arguments)]) == 1
            return capsys.readouterr().err

        return of

    def test_an_unknown_task(self, message, classifier, task_folder, monkeypatch):
        # the harness's own 14,000 tasks take seconds to list
        local = functools.partial(TaskManager, include_path=str(task_folder), include_defaults=False)
        monkeypatch.setattr(task_module, "TaskManager", lambda **_: local())
        error = message(classifier, "--harness", "filmz", "--include-path", task_folder)
        assert "did you mean films?" in error and "Traceback" not in error

    def test_rows_that_cannot_be_fetched(self, message, classifier, tmp_path):
        task = "task: far\ndataset_path: nobody/nothing\noutput_type: multiple_choice\ntest_split: test\n"
        task += "doc_to_text: x\ndoc_to_target: 0\ndoc_to_choice: [a, b]\n"
        (tmp_path / "far.yaml").write_text(task)
        error = message(classifier, "--harness", "far", "--include-path", tmp_path)
        assert "the task 'far' cannot be loaded" in error and "dataset_path is json" in error

    def test_a_task_that_fails(self, message, classifier, task_folder, monkeypatch):
        monkeypatch.setattr(run_module, "simple_evaluate", lambda **_: {}["mood"])
        error = message(classifier, "--harness", "films", "--include-path", task_folder)
        assert "ended with KeyError" in error and "why: 'mood'" in error

    def test_options_of_the_other_kind(self, message, classifier, rows_file):
        assert "without --harness" in message(classifier, "--data", rows_file, "--num-fewshot", 2)
        assert "with --harness" in message(classifier, "--data", rows_file, "--harness", "films")
        assert "neither an artifact" in message("--harness", "films")

    def test_a_missing_library(self, message, classifier, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert 'pip install "softprompt[harness]"' in message(classifier, "--harness", "films")

    def test_a_missing_folder(self, message, classifier, tmp_path):
        assert "there is no folder" in message(
            classifier, "--harness", "films", "--include-path", tmp_path / "no"
        )


def test_the_page_runs(model_folder, tmp_path, monkeypatch, capsys):
    """Its first snippet, on a tiny model."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "harness.md").read_text(encoding="utf-8")
    snippet = page.split("```python\n", 1)[1].split("```", 1)[0]
    assert page.index("```python") < 40 and snippet.count('"smollm2"') == 1
    exec(snippet.replace('"smollm2"', repr(str(model_folder))), {})
    assert capsys.readouterr().out.split()[-1] in {str(n / 8) for n in range(9)}
