"""A comparison on a preference task: every candidate's rewards are those of its own prompt."""

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


def test_methods_are_compared_by_preference_accuracy(tmp_path, model_folder):
    rows = [{"prompt": f"{WORDS[i % 10]} {i}", "chosen": f"yes {i}", "rejected": "no"} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = recipe_from_dict(
        {
            "model": str(model_folder),
            "data": {"train": str(tmp_path / "rows.jsonl")},
            "task": {"kind": "preference", "max_new_tokens": 3},
            "method": {"name": "prompt-tuning", "length": 3},
            "train": {"steps": 2, "batch_size": 4, "dtype": "float32"},
            "output": str(tmp_path / "out"),
            "compare": {
                "methods": ["prompt-tuning/after", "lora", "zero-shot"],
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
    names = {trial.id: trial.contestant for trial in results.trials}
    records = [json.loads(path.read_text()) for path in (tmp_path / "compared" / "trials").glob("*.json")]
    scored = [record for record in records if record.get("examples") and record["about"]["split"] == "test"]
    assert {record["contestant"] for record in scored} == set(names.values())
    for record in scored:
        margins = [row["rewards"][0] - row["rewards"][1] for row in record["examples"]]
        mean = sum(margins) / len(margins)
        assert record["metrics"]["reward_margin"]["value"] == pytest.approx(mean)
        assert (mean == 0) == (record["contestant"] == "zero-shot")
    lora = next(record for record in scored if record["contestant"] == "lora")
    folder = Folder(tmp_path / "compared")
    again = softprompt.open_prompt(folder.artifact(lora["about"]["final"])).evaluate(str(folder.rows("test")))
    value = lora["metrics"]["reward_margin"]["value"]
    assert again.metrics["reward_margin"].value == pytest.approx(value, abs=1e-5)
