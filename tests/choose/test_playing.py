"""A pilot's trials on a machine that is made up: steps that fit their time, and a time that is kept."""

from __future__ import annotations

import pytest

from softprompt.choose import rank, trying
from softprompt.choose.guess import guess
from softprompt.choose.needs import Said, measure
from softprompt.choose.playing import STEPS, fitting, rates_of
from softprompt.choose.start import comparison
from softprompt.choose.trying import measured_first, try_out
from softprompt.config import recipe_from_dict
from softprompt.data.sources import read_rows
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError

GOOD = {"prompt-tuning/after": 0.7, "prefix-tuning/after": 0.9, "lora": 0.8}
REFERENCE = 0.5


class Machine:
    """Time passes in its work alone. A step of LoRA takes three times as long as others."""

    def __init__(self, step: float = 0.1, around: float = 0.5, fails: str = "") -> None:
        self.now, self.step, self.around, self.fails = 0.0, step, around, fails
        self.trials: list = []

    def clock(self) -> float:
        return self.now

    def pace(self, trial) -> float:
        return self.step * (3 if trial.contestant == "lora" else 1)

    def step_seconds(self, trial) -> float:
        self.now += self.pace(trial)
        return self.pace(trial)

    def run(self, trial, seconds):
        if "reference" in trial.about:
            self.now += 0.2
            metrics = {"accuracy": {"value": REFERENCE}}
            return {"status": "done", "dev_key": [REFERENCE, -1.0], "metrics": metrics, "seconds": 0.2}
        if trial.contestant == self.fails:
            self.now += 0.1
            return {"status": "failed", "error": {"what": "no", "why": "", "fix": ""}}
        self.trials.append((trial, seconds))
        steps = trial.recipe["train"]["steps"]
        spent = min(seconds, steps * self.pace(trial))
        self.now += self.around + spent
        rate = trial.settings.get("train.lr", trial.settings.get("base.lr"))
        right = 1.0 if rate == min(trial.settings[k] for k in trial.settings if k.endswith("lr")) else 0.9
        score = GOOD.get(trial.contestant, 0.6) * right * steps / (steps + 5)
        cost = {"train_seconds": spent}
        return {
            "status": "done",
            "dev_key": [score, -1.0],
            "dev": {"accuracy": score},
            "steps": steps,
            "cost": cost,
        }


@pytest.fixture
def tried(rows_file, tmp_path, llama, model_folder, monkeypatch):
    """`tried(machine, seconds)`: a pilot over sixty rows."""
    monkeypatch.setattr(trying, "kept", lambda recipe: llama)
    path = str(rows_file("labels", 60))
    rows = read_rows(path)
    needs = measure(rows, Template("{{ input }}", "{{ target }}"), llama, Said(str(model_folder)))
    asked = recipe_from_dict({"model": str(model_folder), "data": {"train": path}})
    plain, _ = comparison(path, "rows", tmp_path, asked, guess(rows), needs)
    plain["data"]["train"] = path

    def play(machine, seconds):
        return rank(needs), try_out(
            plain, rank(needs), tmp_path / "pilot", seconds, work=machine, clock=machine.clock
        )

    return play


@pytest.mark.parametrize("seconds", [30.0, 120.0, 600.0])
@pytest.mark.parametrize("step", [0.02, 0.1, 0.5])
def test_the_time_is_kept_and_used(tried, seconds, step):
    machine = Machine(step)
    _, found = tried(machine, seconds)
    slowest = 3 * step * STEPS[0] + machine.around  # one trial may begin just before the end
    assert machine.now <= seconds + slowest
    assert found.pilot.seconds == pytest.approx(machine.now)
    if step * 800 > seconds:  # else even the longest trials leave some over
        assert machine.now > 0.4 * seconds


def test_the_best_is_first_and_the_rest_as_it_was(tried):
    ranking, found = tried(Machine(), 600.0)
    assert found.pilot.best.contestant == "prefix-tuning/after"
    names = [item.contestant.name for item in measured_first(ranking, found.pilot).ranked]
    played = [trial.contestant for trial in found.pilot.order]
    assert names[: len(played)] == played and sorted(names) == sorted(
        i.contestant.name for i in ranking.ranked
    )
    rest = [i.contestant.name for i in ranking.ranked if i.contestant.name not in played]
    assert names[len(played) :] == rest
    assert {"zero-shot", "few-shot"} <= set(played)
    assert found.settings["prefix-tuning/after"].keys() == {"train.lr"}


def test_trials_have_as_many_steps_as_fit_and_the_same_rows(tried):
    machine = Machine()
    tried(machine, 300.0)
    first = [t for t, _ in machine.trials if t.rows == min(t.rows for t, _ in machine.trials)]
    steps = {name: [t.recipe["train"]["steps"] for t in first if t.contestant == name] for name in GOOD}
    if steps["lora"]:  # whose steps take three times as long
        assert max(steps["lora"]) < min(steps["prefix-tuning/after"])
    assert {t.recipe["train"]["seed"] for t, _ in machine.trials} == {0}
    assert all(seconds >= 1.0 for _, seconds in machine.trials)


def test_who_fails_loses_and_says_why(tried):
    _, found = tried(Machine(fails="prefix-tuning/after"), 300.0)
    lost = [trial for trial in found.pilot.order if trial.contestant == "prefix-tuning/after"]
    assert lost and lost[0].error == "no" and "prefix-tuning/after" not in found.settings


def test_no_time_at_all_is_said(tried):
    with pytest.raises(SoftPromptError, match="time ran out"):
        tried(Machine(), 0.3)


def test_the_ladder():
    assert fitting(0.0, 1.0) == STEPS[0] and fitting(33.0, 1.0) == 32 and fitting(1e9, 1.0) == STEPS[-1]


def test_its_own_rate_comes_first():
    from softprompt.choose import CONTESTANTS

    assert rates_of(CONTESTANTS["prefix-tuning/after"]) == [0.01, 0.03, 0.003]
