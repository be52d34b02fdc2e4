"""A pilot: planned to fit its time, run as the search of a comparison, and honest about its scores."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from softprompt.compare.running.executors import Serial
from softprompt.data.sources import read_rows
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError
from softprompt.recommend import pilot as piloting
from softprompt.recommend import rank, time_budget
from softprompt.recommend.infer_fields import guess
from softprompt.recommend.pilot import Pilot, measured_first, run_pilot
from softprompt.recommend.pilot_order import PilotTrial, best_first, in_order
from softprompt.recommend.quickstart import comparison
from softprompt.recommend.requirements import Requirements, measure

pytestmark = pytest.mark.slow


def trial(name: str, score: float, log_loss: float | None = None, **changes) -> PilotTrial:
    key = (score,) if log_loss is None else (score, log_loss)
    made = PilotTrial(name, {"train.lr": 0.1}, 100, 50, 1.0, 10, "done", score, noise=0.04, key=key)
    return replace(made, **changes)


def failed(name: str) -> PilotTrial:
    return replace(trial(name, 0.0), status="failed", score=None, key=(), error="no")


class Jobs:
    """Runs jobs here and keeps them; it can fail those of one method."""

    workers = 1

    def __init__(self, fails: str = "") -> None:
        self.fails, self.trials = fails, []

    def run(self, work, jobs):
        return Serial().run(lambda job: self._work(work, job), jobs)

    def _work(self, work, job):
        trials = getattr(job, "trials", ())
        self.trials += trials
        if trials and trials[0].contestant == self.fails:
            raise RuntimeError("killed")
        return work(job)

    def close(self) -> None:
        pass


@pytest.fixture
def tried(rows_file, tmp_path, llama, model_folder, monkeypatch):
    """`tried(seconds, step=…)`: the jobs and the pilot over sixty rows; `tried.ranking`: that of all methods.

    The plan takes a step for `step` seconds, one of LoRA for three times that; it chooses the number of steps
    from `steps`.
    """
    path = str(rows_file("labels", 60))
    rows = read_rows(path)
    needs = measure(rows, Template("{{ input }}", "{{ target }}"), llama, Requirements(str(model_folder)))
    plain, _ = comparison(path, "rows", tmp_path, str(model_folder), guess(rows), needs)
    plain["data"]["train"], plain["train"]["dtype"] = path, "float32"

    def run(seconds: float, step: float = 0.0, steps=(2, 1), fails: str = "", ranking=None):
        def measured(recipe, lm, rows, workers=1):
            assert lm is llama and len(rows) == 60
            pace = {name: step * (3 if name == "lora" else 1) for name in recipe.compare.methods}
            return time_budget.MeasuredSeconds(pace, 0.0, start=0.0)

        monkeypatch.setattr(time_budget, "measure", measured)
        monkeypatch.setattr(piloting, "LEVELS", {**piloting.LEVELS, "train.steps": steps})
        jobs, ranking = Jobs(fails), ranking or run.ranking
        folder = tmp_path / "pilot"
        return jobs, run_pilot(plain, ranking, folder, seconds, lm=llama, rows=rows, executor=jobs)

    run.ranking = rank(needs)
    return run


class Planned(Exception):
    """Raised in place of a comparison."""


@pytest.fixture
def planned(tried, monkeypatch):
    """`planned(…)`, as `tried`: the recipe of the comparison that would be run."""

    def stop(recipe, *args, **options):
        raise Planned(recipe)

    def plan(*args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(piloting, "compare", stop)
            with pytest.raises(Planned) as end:
                tried(*args, **options)
        return end.value.args[0]

    return plan


def first(ranking, count):
    """The ranking with its first trained methods and the references alone."""
    trained = [item for item in ranking.ranked if item.candidate.is_trained][:count]
    others = [item for item in ranking.ranked if not item.candidate.is_trained]
    return replace(ranking, ranked=(*trained, *others))


def test_a_pilot_is_the_search_of_a_comparison(tried):
    ranking = first(tried.ranking, 2)
    jobs, result = tried(600.0, ranking=ranking)
    assert {t.phase for t in jobs.trials} == {"reference", "search"}
    trained = [t.contestant for t in result.played if t.settings]
    assert {trained.count(name) for name in trained} == {3} and len(set(trained)) == 2
    assert {t.steps for t in result.played if t.settings and t.status == "done"} == {2}
    assert result.answer is not None
    assert next(t for t in result.order if t.settings).contestant == result.answer.method
    assert result.answer.headline.startswith(("These rows do not tell", "Take", "Keep"))
    references = [t for t in result.order if not t.settings]
    assert {t.contestant for t in references} == {"zero-shot", "few-shot"}
    assert all(t.steps is None and t.score is not None for t in references)
    assert (result.metric, result.dev_rows) == ("accuracy", 10)  # a fifth of what is left of sixty
    assert not result.lowered and not result.unplayed
    ordered = [item.candidate.name for item in measured_first(tried.ranking, result).ranked]
    tried_names = [t.contestant for t in result.order]
    assert ordered[:4] == tried_names
    assert sorted(ordered) == sorted(item.candidate.name for item in tried.ranking.ranked)
    again, second = tried(600.0, ranking=ranking)
    assert not again.trials and second.order == result.order  # nothing is run twice


def test_a_second_pilot_has_its_own_time(tried, tmp_path):
    ranking = first(tried.ranking, 1)
    tried(600.0, ranking=ranking)
    study = tmp_path / "pilot/study.json"
    study.write_text(study.read_text().replace('"seconds":', '"seconds": 10000.0, "before":'))
    jobs, _ = tried(600.0, steps=(3,), ranking=ranking)
    assert {t.recipe["train"]["steps"] for t in jobs.trials if t.phase == "search"} == {3}


def test_less_time_is_fewer_steps_then_rates_then_methods(tried, planned):
    shapes = []
    for seconds in (10_000.0, 2500.0, 345.0, 150.0):
        recipe = planned(seconds, step=0.5, steps=(150, 100, 75, 50, 30, 20, 12))
        rates = {name: c["rates"] for name, c in recipe.compare.methods.items() if c}
        shapes.append((recipe.train.steps, len(next(iter(rates.values()))), len(rates)))
        assert len({len(own) for own in rates.values()}) == 1
        trained = sum(len(own) * (3 if name == "lora" else 1) for name, own in rates.items())
        assert 0.5 * trained * recipe.train.steps <= 0.8 * seconds
    assert shapes[0] == (150, 3, 7) and shapes[1][1:] == (3, 7) and shapes[1][0] < 150
    assert 50 <= shapes[2][0] < 150 and shapes[2][1:] == (1, 7)
    assert shapes[3][0] >= 50 and shapes[3][2] < 7


def test_a_pilot_gives_its_methods_the_same_time(tried, planned, tmp_path):
    recipe = planned(10_000.0, step=0.01)
    trained = [name for name, changes in recipe.compare.methods.items() if changes]
    seconds = [2 * 3 * 0.01 * (3 if name == "lora" else 1) for name in trained]  # two steps of three rates
    least = 5 * max(seconds) / 2  # five steps of the slowest
    assert recipe.compare.budget == pytest.approx(max(sum(seconds) / len(seconds), least))
    # the next pilot of the same methods takes the budget, and so the plan, that is there
    (tmp_path / "pilot").mkdir()
    earlier = recipe.model_copy(update={"compare": recipe.compare.model_copy(update={"budget": 7.0})})
    study = {"recipe": earlier.to_dict(), "seconds": 1.0}
    (tmp_path / "pilot/study.json").write_text(json.dumps(study))
    assert planned(10_000.0, step=0.02).compare.budget == 7.0
    assert planned(10_000.0, step=0.02, steps=(3,)).compare.budget != 7.0


def test_the_method_with_the_fastest_step_comes_first(planned):
    names = [name for name, changes in planned(10_000.0, step=0.01).compare.methods.items() if changes]
    assert names[-1] == "lora" and names[0] == "prompt-tuning/after"


def test_a_time_that_is_too_short_is_refused_with_one_that_will_do(planned):
    with pytest.raises(SoftPromptError, match="too short") as error:
        planned(20.0, step=2.0, steps=(12,))
    enough = int(error.value.fix.removeprefix("--pilot ").partition("m")[0])
    assert len([c for c in planned(60.0 * enough, step=2.0, steps=(12,)).compare.methods.values() if c]) >= 2


def test_a_method_that_fails_comes_last_with_its_reason(tried):
    ranking = first(tried.ranking, 2)
    name = ranking.ranked[0].candidate.name
    _, result = tried(600.0, fails=name, ranking=ranking)
    assert result.order[-1].contestant == name and result.order[-1].error == "killed"
    assert name not in result.settings and result.order[-1].score is None
    with pytest.raises(SoftPromptError, match="came to an end") as error:
        tried(600.0, steps=(4,), fails=name, ranking=first(ranking, 1))
    assert error.value.why == "killed"
    with pytest.raises(SoftPromptError, match="no method left"):
        tried(600.0, ranking=first(ranking, 0))


def test_within_the_noise_of_the_best_the_log_loss_decides():
    """A reference has no log-loss that can be compared, and keeps its place."""
    trials = [trial("a", 0.80, -2.0), trial("b", 0.78, -1.0), trial("few-shot", 0.79), trial("c", 0.75, -0.5)]
    assert [t.contestant for t in best_first(trials)] == ["b", "few-shot", "a", "c"]


def test_a_trial_that_ended_early_counts_where_no_other_ended():
    early = {"status": "pruned"}
    played = [trial("a", 0.9, -1.0, **early), trial("a", 0.5, -1.0), trial("b", 0.6, -1.0, **early)]
    played += [failed("c"), trial("c", 0.4, -1.0), failed("d")]
    assert [(t.contestant, t.score) for t in in_order(played)] == [
        ("b", 0.6),
        ("a", 0.5),
        ("c", 0.4),
        ("d", None),
    ]


def test_methods_that_are_not_separated_from_the_best_are_named(tmp_path):
    def near(*scores: float, noise: float = 0.04) -> tuple[str, ...]:
        order = [trial(f"c{i}", score, noise=noise) for i, score in enumerate(scores)]
        order.append(failed("lost"))
        return Pilot(tuple(order), tuple(order), (), (), "accuracy", 100, tmp_path, 1.0).unseparated

    # the difference of two scores with a standard error of 0.04 each is within 0.11 in 95 of 100 cases
    assert near(0.80, 0.82, 0.72) == ("c0", "c1", "c2")
    assert near(0.80, 0.82, 0.70) == ("c0", "c1")
    assert near(0.80, 0.68) == () and near(0.8, 0.8, noise=0.0) == ("c0", "c1")


def test_the_log_loss_finds_the_better_more_often():
    """Accuracies of 100 rows, and losses that move half as much: drawn a thousand times."""
    draw, right = random.Random(0), {"score": 0, "log-loss": 0}
    for _ in range(1000):
        trials = []
        for name, accuracy in (("better", 0.84), ("worse", 0.80)):
            seen = sum(draw.random() < accuracy for _ in range(100)) / 100
            trials.append(trial(name, seen, accuracy + draw.gauss(0, 0.02)))
        right["score"] += max(trials, key=lambda one: one.key[0]).contestant == "better"
        right["log-loss"] += best_first(trials)[0].contestant == "better"
    assert right["log-loss"] > right["score"] + 50
