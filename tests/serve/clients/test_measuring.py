"""lm_eval's scores and answers are those of transformers without a server; guidellm measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.serve.clients.conftest import END
from tests.serve.clients.snippets import snippet

JOKE = "demo/prefix-tuning:joke"
ROWS = [
    {"question": "The capital of France is", "choices": ["Paris", "Rome"], "answer": 0},
    {"question": "The sea is", "choices": ["a dog", "blue, and wide"], "answer": 1},
    {"question": "One and one are", "choices": ["two", "three"], "answer": 0},
]
OPTIONS = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}
MEAN = {"aggregation": "mean", "higher_is_better": True}
TASKS: dict[str, dict[str, Any]] = {
    "capitals": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", **MEAN}],
    },
    "answers": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": OPTIONS,
        "metric_list": [{"metric": "exact_match", **MEAN}],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "byte_perplexity"}],
    },
}


@pytest.fixture
def folder(tmp_path, lm) -> Path:
    """Where the commands run: the tasks, their rows, and the base's tokenizer."""
    lm.tokenizer.save_pretrained(tmp_path / "tokenizer")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "tasks").mkdir()
    data = {"data_files": {"test": str(rows)}, "cache_dir": str(tmp_path / "cache")}
    for name, task in TASKS.items():
        task = {"task": name, "dataset_path": "json", "dataset_kwargs": data, "test_split": "test", **task}
        (tmp_path / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return tmp_path


def shell(command: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "GUIDELLM__MAX_WORKER_PROCESSES": "1"}
    subprocess.run(["sh", "-c", command], cwd=folder, env=env, check=True, timeout=300)


def resps(samples: list[dict[str, Any]]) -> list[Any]:
    """What a task's requests were answered, by row and request."""
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    return [[answer for (answer,) in sample["resps"]] for sample in ordered]


def check_scores(found: list[Any], lm, scored, before) -> None:
    """`found`: by row and choice the log-likelihood and whether each of its tokens is the likeliest."""
    for row, answers in zip(ROWS, found, strict=True):
        for choice, (total, _) in zip(row["choices"], answers, strict=True):
            ids = lm.tokenizer(f"{row['question']} {choice}")["input_ids"]
            assert float(total) == pytest.approx(scored(ids, len(choice) + 1, before), abs=1e-3)


class TestLmEval:
    @pytest.fixture(autouse=True)
    def harness(self):
        # lm_eval alone is in the tests' own environment too, where tests/harness runs it against the server
        pytest.importorskip("guidellm", reason="NO CLIENTS: make test-clients")
        return pytest.importorskip("lm_eval", reason="NO LM_EVAL: make test-clients")

    @pytest.fixture
    def evaluate(self, harness, folder, url) -> Callable[..., list[Any]]:
        """`evaluate(task, prompt, …)`: what lm_eval read of texts as they are, in this process."""

        def run(task: str, prompt: str, **more: Any) -> list[Any]:
            to = {"model": prompt, "base_url": f"{url}/completions", "tokenizer": str(folder / "tokenizer")}
            done = harness.simple_evaluate(
                model="local-completions",
                model_args={**to, "max_retries": 1, **more},
                tasks=[task],
                task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
                bootstrap_iters=0,
            )
            return resps(done["samples"][task])

        from lm_eval.tasks import TaskManager

        return run

    @pytest.mark.process
    @pytest.mark.parametrize("at", [1, 2])
    def test_the_snippets(self, at, served, folder, lm, scored, before, tuned):
        shell(snippet("lm_eval", "bash", served, at), folder)
        (lines,) = folder.glob("scores/*/samples_*.jsonl")
        found = resps([json.loads(line) for line in lines.read_text().splitlines()])
        if at == 1:
            check_scores(found, lm, scored, before)
        else:
            assert found == [[tuned("soft-after", row["question"], 12)] for row in ROWS]

    @pytest.mark.parametrize("how", [{"num_concurrent": 4}, {"batch_size": 4}, {"tokenized_requests": False}])
    def test_log_likelihoods_before_the_input(self, how, evaluate, lm, scored, before):
        check_scores(evaluate("capitals", "soft-before", **how), lm, scored, before)

    def test_log_likelihoods_of_whole_texts(self, evaluate, lm, scored, before):
        found = evaluate("texts", "soft-before")
        for row, (total,) in zip(ROWS, found, strict=True):
            ids = lm.tokenizer(row["question"])["input_ids"]
            assert float(total) == pytest.approx(scored([END, *ids], len(ids), before), abs=1e-3)

    def test_texts_go_on(self, evaluate, plain, before):
        found = evaluate("answers", "soft-before")
        assert found == [[plain(row["question"], 12, before).split("\n")[0]] for row in ROWS]

    @pytest.mark.parametrize("prompt", ["soft-after", JOKE])
    @pytest.mark.parametrize("task", ["capitals", "texts"])
    def test_log_likelihoods_after_the_input_are_refused(self, prompt, task, evaluate, caplog):
        import requests

        with pytest.raises(requests.HTTPError, match="400"):
            evaluate(task, prompt)
        assert "are behind the input" in caplog.text and "placement=before" in caplog.text


@pytest.mark.process
def test_guidellm_measures(served, folder, tuned):
    pytest.importorskip("guidellm", reason="NO GUIDELLM: make test-clients")
    command = snippet("guidellm", "bash", served).replace("count=100", "count=6")
    shell(command.replace(f"model={JOKE}", f"model={JOKE},extras.body.temperature=0", 1), folder)
    (benchmark,) = json.loads((folder / "guidellm.json").read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"], totals["incomplete"]) == (6, 0, 0)
    for request in benchmark["requests"]["successful"]:
        (message,) = json.loads(request["request_args"])["body"]["messages"]
        text = "".join(part["text"] for part in message["content"])
        assert request["output_metrics"]["text_tokens"] == 16
        assert request["input_metrics"]["text_tokens"] == len(text)
        # the library's answer ends where an end token comes, which guidellm wants to be ignored
        assert request["output"].strip().startswith(tuned(JOKE, text, 16))
