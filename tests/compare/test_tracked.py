"""The trials of a comparison in a tracker: each once, with its settings, its steps and its scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from softprompt.compare.experiment import compare
from softprompt.compare.running.executors import Local, Serial
from softprompt.config.load import recipe_from_dict
from softprompt.tracking.journal import read

from .test_experiment import write_rows

pytestmark = pytest.mark.whole


def recipe_of(folder: Path, model: Path, track):
    return recipe_from_dict(
        {
            "model": str(model),
            "data": {"train": write_rows(folder / "rows.jsonl", 40)},
            "task": {"kind": "classification", "labels": ["good", "bad"]},
            "method": {"name": "prompt-tuning", "length": 3},
            "train": {"steps": 3, "batch_size": 4, "eval_every": 3, "dtype": "float32"},
            "output": str(folder / "out"),
            "track": track,
            "compare": {
                "methods": ["prompt-tuning/after", "zero-shot"],
                "rates": [1e-2, 3e-2],
                "seeds": 1,
                "control": False,
                "serving": False,
                "prune": False,
            },
        }
    )


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = EventAccumulator(str(folder))
    result.Reload()
    return result


@pytest.mark.process
def test_each_trial_of_spawned_workers_is_a_run_and_the_table_is_the_last(tmp_path, model_folder):
    workers = Local(1, 1)
    try:
        done = compare(recipe_of(tmp_path, model_folder, "tensorboard"), on=workers, report=False)
    finally:
        workers.close()
    records = [json.loads(file.read_text()) for file in (done.folder / "trials").glob("*.json")]
    folders = {path.name for path in (done.folder / "tensorboard").iterdir()}
    assert len(folders) == len(records) + 1 and "comparison" in folders
    for record in records:
        if record["phase"] not in ("search", "final"):
            continue
        settings = [f"{key.split('.')[-1]}={value}" for key, value in record["settings"].items()]
        name = " ".join(["prompt-tuning_after", record["phase"], *settings, f"seed={record['seed']}"])
        run = events(done.folder / "tensorboard" / name)
        inside = Path(record["id"], "metrics.jsonl")  # a final keeps its folder
        file = inside if record["phase"] == "final" else f"{record['id']}.metrics.jsonl"
        journal = [line for line in read(done.folder / "trials" / file) if line["kind"] == "step"]
        assert [x["step"] for x in journal] == [1, 2, 3]
        assert [e.value for e in run.Scalars("train/loss")] == pytest.approx([x["loss"] for x in journal])
        assert run.Scalars("best/accuracy")[0].value == pytest.approx(record["dev"]["accuracy"])
    table = events(done.folder / "tensorboard" / "comparison")
    text = table.Tensors("results/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "prompt-tuning/after" in text and "accuracy" in text

    again = compare(recipe_of(tmp_path, model_folder, "tensorboard"), on=Serial(), report=False)
    assert again.ran == 0
    assert {p.name for p in (done.folder / "tensorboard").iterdir()} == {*folders, "comparison-2"}
