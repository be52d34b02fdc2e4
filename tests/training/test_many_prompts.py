"""What is done for each of many prompts, and what once for all of them."""

from __future__ import annotations

import json

import pytest

import softprompt.training.prepare as preparing
from softprompt.config.load import recipe_from_dict
from softprompt.training import sweep_estimate
from softprompt.training.loop import Saves
from softprompt.training.sweep import prepare_prompts

PROMPTS = 6


@pytest.fixture
def recipe(model_folder, tmp_path):
    rows = [
        {"customer": f"c {i % PROMPTS}", "input": f"a row {i}", "target": ["yes", "no"][i // PROMPTS % 2]}
        for i in range(8 * PROMPTS)
    ]
    rows[0]["customer"] = "c\u00a00"  # the same name in another spelling
    for name, part in (("train", rows[: 6 * PROMPTS]), ("dev", rows[6 * PROMPTS :])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return recipe_from_dict(
        {
            "model": str(model_folder),
            "data": {
                "train": str(tmp_path / "train.jsonl"),
                "dev": str(tmp_path / "dev.jsonl"),
                "prompt_field": "customer",
            },
            "task": {"kind": "classification"},
            "method": {"name": "prefix-tuning", "length": 2},
            "train": {"steps": 2, "batch_size": 2, "dtype": "float32", "apart": True},
            "output": str(tmp_path / "out"),
        }
    )


def counted(monkeypatch, name):
    """Count the calls of a function of `training.prepare`."""
    calls, real = [], getattr(preparing, name)
    monkeypatch.setattr(preparing, name, lambda *args, **how: calls.append(name) or real(*args, **how))
    return calls


def test_the_base_is_hashed_and_a_step_measured_once(recipe, monkeypatch):
    hashed, measured = counted(monkeypatch, "base_fingerprint"), counted(monkeypatch, "backward_bytes")
    runs = prepare_prompts(recipe)
    assert len(runs) == PROMPTS
    assert (len(hashed), len(measured)) == (1, 1)
    assert all(run.base == runs[0].base for run in runs)
    assert [(len(run.train), len(run.dev)) for run in runs] == [(6, 2)] * PROMPTS


def test_the_limit_of_dev_rows_is_of_each_prompt(recipe):
    """Of all together, one row would leave most prompts without any."""
    limited = recipe.model_copy(update={"data": recipe.data.model_copy(update={"dev_limit": 1})})
    assert [len(run.dev) for run in prepare_prompts(limited)] == [1] * PROMPTS


def test_a_sample_of_many_runs_is_timed(recipe, monkeypatch):
    runs, timed = prepare_prompts(recipe), []
    monkeypatch.setattr(sweep_estimate, "MOST", 2)

    def seconds(some, repeats):
        timed.append(len(some))
        return 3.0

    monkeypatch.setattr(sweep_estimate, "round_seconds", seconds)
    monkeypatch.setattr(sweep_estimate, "cache_seconds", lambda *_: 0.0)
    monkeypatch.setattr(sweep_estimate, "evaluating", lambda run: (0.0, 0.0))
    left = sweep_estimate.left_of(runs, restart=False, overwrite=False)
    # two runs take 3 s a round, so that 6 runs of 2 steps take 18 s
    assert sweep_estimate.seconds_of(left) == pytest.approx(3.0 / 2 * PROMPTS * 2)
    assert timed == [2]


class Learners:
    """Learners that take so many seconds to save, on a clock that is moved by hand."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds, self.saved_at = 0.0, seconds, []

    def save(self) -> None:
        self.saved_at.append(self.now)
        self.now += self.seconds


@pytest.mark.parametrize(("seconds", "saved"), [(0.5, [0.0, 10.5, 21.0, 31.5]), (4.0, [0.0, 84.0])])
def test_costly_saves_are_seldom(seconds, saved):
    """One that takes 4 s is not repeated before 80 s are over; one that takes half a second always is."""
    learner = Learners(seconds)
    saves = Saves(lambda: learner.now)
    for _ in range(4 if seconds < 1 else 11):
        saves.save([learner])  # type: ignore[list-item]
        learner.now += 10.0
    assert learner.saved_at == pytest.approx(saved)
