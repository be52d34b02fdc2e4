"""A comparison takes an embedding task: every candidate ranks the same documents."""

from __future__ import annotations

import json

import pytest

import softprompt
from softprompt.compare.experiment import compare
from softprompt.compare.records.store import Folder
from softprompt.compare.report.read import comparison
from softprompt.config.load import recipe_from_dict

pytestmark = pytest.mark.whole

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss", "ox", "tree"]


def test_methods_are_compared_by_their_ranks(tmp_path, bert_folder):
    rows = [{"query": f"{WORDS[i % 10]} {i}", "positive": f"it is {WORDS[i % 10]} {i}"} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = recipe_from_dict(
        {
            "model": str(bert_folder),
            "data": {"train": str(tmp_path / "rows.jsonl")},
            "task": {"kind": "embedding"},
            "method": {"name": "prompt-tuning", "length": 3},
            "train": {"steps": 2, "batch_size": 4, "dtype": "float32"},
            "output": str(tmp_path / "out"),
            "compare": {
                "methods": ["prompt-tuning/before", "lora", "zero-shot"],
                "rates": [3e-2],
                "base_rates": [1e-2],
                "seeds": 1,
                "control": False,
                "serving": False,
                "output": str(tmp_path / "compared"),
            },
        }
    )
    assert compare(recipe).failed == 0
    results = comparison(tmp_path / "compared")
    assert {score.contestant for score in results.scores} == set(recipe.compare.methods or ())
    records = [json.loads(path.read_text()) for path in (tmp_path / "compared" / "trials").glob("*.json")]
    scored = [record for record in records if record.get("examples") and record["about"]["split"] == "test"]
    assert {record["contestant"] for record in scored} == set(recipe.compare.methods or ())
    for record in scored:
        reciprocal = [1 / min(row["ranks"]) for row in record["examples"]]
        assert record["metrics"]["mrr"]["value"] == pytest.approx(sum(reciprocal) / len(reciprocal))
    lora = next(record for record in scored if record["contestant"] == "lora")
    folder = Folder(tmp_path / "compared")
    again = softprompt.open_prompt(folder.artifact(lora["about"]["final"])).evaluate(str(folder.rows("test")))
    assert again.metrics["mrr"].value == pytest.approx(lora["metrics"]["mrr"]["value"], abs=1e-5)


PAIRS = [{"query": f"{WORDS[i % 10]} {i}", "document": f"{WORDS[(i // 3) % 10]}"} for i in range(40)]
TASKS = {
    "scored": ("query", {"kind": "embedding", "score": "fits"}, ["spearman"]),
    "reranker": (
        "query",
        {"kind": "regression", "query": "query"},
        ["ndcg_at_10", "mrr", "recall_at_1", "mse"],
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_pairs_are_compared_by_their_own_metrics(tmp_path, bert_folder, name):
    field, task, metrics = TASKS[name]
    rows = [row | {"fits": (i % 5) / 4, field: f"{WORDS[i // 4]} {i // 4}"} for i, row in enumerate(PAIRS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    target = "{{ document }}" if task["kind"] == "embedding" else "{{ fits }}"
    text = "{{ query }}" if task["kind"] == "embedding" else "{{ query }} [SEP] {{ document }}"
    recipe = recipe_from_dict(
        {
            "model": str(bert_folder),
            "data": {"train": str(tmp_path / "rows.jsonl")},
            "template": {"input": text, "target": target},
            "task": task,
            "method": {"name": "prompt-tuning", "length": 3},
            "train": {"steps": 2, "batch_size": 4, "dtype": "float32"},
            "output": str(tmp_path / "out"),
            "compare": {
                "methods": ["prompt-tuning/before", "zero-shot"],
                "rates": [3e-2],
                "seeds": 1,
                "control": False,
                "serving": False,
                "output": str(tmp_path / "compared"),
            },
        }
    )
    assert compare(recipe).failed == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "compared" / "trials").glob("*.json")]
    scored = [record for record in records if record.get("examples") and record["about"]["split"] == "test"]
    assert {record["contestant"] for record in scored} == set(recipe.compare.methods or ())
    assert all(list(record["metrics"]) == metrics for record in scored)
    tests = comparison(tmp_path / "compared").tests
    assert {test.metric for test in tests} == {metrics[0]}
