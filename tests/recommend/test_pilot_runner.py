"""A pilot's trials on a machine that is made up: steps that fit their time, and a time that is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from softprompt.config.load import recipe_from_dict
from softprompt.config.schema import TrainConfig
from softprompt.data.sources import read_rows
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError
from softprompt.recommend import rank, run_pilot
from softprompt.recommend.infer_fields import guess
from softprompt.recommend.pilot_runner import STEPS, TrialSeconds, rates_of
from softprompt.recommend.quickstart import comparison
from softprompt.recommend.requirements import Said, measure
from softprompt.recommend.run_pilot import measured_first, try_out

GOOD = {"prompt-tuning/after": 0.7, "prefix-tuning/after": 0.9, "lora": 0.8}
REFERENCE, DEV = 0.5, 12  # of sixty rows
DEFAULT_STEPS = TrainConfig().steps


class Machine:
    """Time passes in its work alone. A step of LoRA takes three times as long as others.

    Where inputs are kept, each row that a trial trains on is read before it, in `reading` seconds.
    """

    def __init__(self, step: float = 0.1, around: float = 0.5, reading: float = 0.0, fails: str = "") -> None:
        self.now, self.step, self.around, self.fails = 0.0, step, around, fails
        self.reading = reading
        self.trials: list = []

    def clock(self) -> float:
        return self.now

    def pace(self, trial) -> float:
        return self.step * (3 if trial.contestant == "lora" else 1)

    def step_seconds(self, trial) -> tuple[float, bool]:
        self.now += self.pace(trial)
        return self.pace(trial), self.keeps(trial)

    def keeps(self, trial) -> bool:
        return trial.contestant.endswith("after")

    def run(self, trial, seconds):
        if "reference" in trial.about:
            took = 0.2 + DEV * self.reading
            self.now += took
            metrics = {"accuracy": {"value": REFERENCE}}
            return {"status": "done", "dev_key": [REFERENCE, -1.0], "metrics": metrics, "seconds": took}
        if trial.contestant == self.fails:
            self.now += 0.1
            return {"status": "failed", "error": {"what": "no", "why": "", "fix": ""}}
        self.trials.append((trial, seconds))
        steps = trial.recipe["train"]["steps"]
        how = trial.recipe["train"]
        read = min(trial.rows, steps * how["batch_size"]) if self.keeps(trial) else 0
        spent = min(seconds, steps * self.pace(trial) + read * self.reading)
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
    """`tried(machine, seconds, place)`: a pilot over sixty rows."""
    monkeypatch.setattr(run_pilot, "kept", lambda recipe: llama)
    path = str(rows_file("labels", 60))
    rows = read_rows(path)
    needs = measure(rows, Template("{{ input }}", "{{ target }}"), llama, Said(str(model_folder)))
    asked = recipe_from_dict({"model": str(model_folder), "data": {"train": path}})
    plain, _ = comparison(path, "rows", tmp_path, asked, guess(rows), needs)
    plain["data"]["train"] = path

    def play(machine, seconds, place=tmp_path / "pilot"):
        return rank(needs), try_out(plain, rank(needs), place, seconds, work=machine, clock=machine.clock)

    return play


@pytest.mark.parametrize("reading", [0.0, 0.1])
@pytest.mark.parametrize("seconds", [30.0, 120.0, 600.0])
@pytest.mark.parametrize("step", [0.02, 0.1, 0.5])
def test_the_time_is_kept_and_used(tried, seconds, step, reading):
    machine = Machine(step, reading=reading)
    _, found = tried(machine, seconds)
    slowest = 3 * step * STEPS[0] + machine.around + 60 * reading  # one may begin just before the end
    assert machine.now <= seconds + slowest
    assert found.pilot.seconds == pytest.approx(machine.now)
    if step * DEFAULT_STEPS * 8 > seconds:  # else even the longest trials leave some over
        assert machine.now > 0.5 * seconds


def test_no_trial_is_longer_than_the_recipe(tried):
    _, found = tried(Machine(0.001, around=0.0), 1000.0)
    assert max(trial.steps for trial in found.pilot.played) == DEFAULT_STEPS


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


@pytest.mark.parametrize("seconds", [60.0, 300.0, 1000.0])
def test_trials_of_a_rung_have_the_same_rows_and_steps(tried, seconds):
    machine = Machine()
    _, found = tried(machine, seconds)
    for rung in range(1 + max(trial.rung for trial in found.pilot.played)):
        trials = [t for t in found.pilot.played if t.rung == rung and t.steps]
        assert len({(t.rows, t.steps) for t in trials}) == 1, trials
    assert {t.recipe["train"]["seed"] for t, _ in machine.trials} == {0}
    assert all(seconds >= 1.0 for _, seconds in machine.trials)


def test_more_time_is_more_methods_then_more_rates(tried, tmp_path):
    played = []
    for number, seconds in enumerate((20.0, 60.0, 2000.0)):
        _, found = tried(Machine(), seconds, tmp_path / str(number))
        trained = [t for t in found.pilot.played if t.steps]
        names = {t.contestant for t in trained}
        played.append(
            (len(names), max(sum(t.contestant == n and t.rung == 0 for t in trained) for n in names))
        )
    assert played == sorted(played) and len(set(played)) > 1 and played[0][1] == 1 and played[-1] == (7, 3)


def test_a_method_that_cannot_be_timed_says_why_when_played(tried):
    class Refusing(Machine):
        def step_seconds(self, trial):
            if trial.contestant == "prefix-tuning/after":
                raise SoftPromptError("no")
            return super().step_seconds(trial)

    _, found = tried(Refusing(fails="prefix-tuning/after"), 300.0)
    assert {t.error for t in found.pilot.played if t.contestant == "prefix-tuning/after"} == {"no"}
    assert found.pilot.best.contestant == "lora"


def test_scores_are_shown_as_the_metric_has_them(tried):
    _, found = tried(Machine(), 60.0)
    assert found.metric == "accuracy" and found.shown(0.9) == 0.9
    assert replace(found, metric="perplexity").shown(-4.5) == 4.5


def test_who_fails_loses_and_says_why(tried):
    _, found = tried(Machine(fails="prefix-tuning/after"), 300.0)
    lost = [trial for trial in found.pilot.order if trial.contestant == "prefix-tuning/after"]
    assert lost and lost[0].error == "no" and "prefix-tuning/after" not in found.settings


def test_no_time_at_all_is_said(tried):
    with pytest.raises(SoftPromptError, match="time ran out"):
        tried(Machine(), 0.3)


def test_what_a_trial_takes():
    """Rows are read once, however often the steps come back to them."""
    pace = TrialSeconds(step=0.5, reading=0.1, around=3.0, batch=8)
    assert pace.seconds(10, 200) == pytest.approx(3.0 + 5.0 + 8.0)
    assert pace.seconds(100, 200) == pytest.approx(3.0 + 50.0 + 20.0)


def test_its_own_rate_comes_first():
    from softprompt.recommend import CONTESTANTS

    assert rates_of(CONTESTANTS["prompt-tuning/after"]) == [0.03, 0.09, 0.01]
