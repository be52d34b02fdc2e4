"""Steps planned for equal seconds, with stand-in paces: how many, what counts once, what a resume takes."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from softprompt.compare.candidates import candidates_of
from softprompt.compare.experiment import Hooks, compare
from softprompt.compare.phases import pace as timing
from softprompt.compare.price import price
from softprompt.compare.records.pace import CachePace, Pace, Stage
from softprompt.compare.records.store import Folder
from softprompt.compare.report.read import comparison
from softprompt.compare.running import equal_time, worker
from softprompt.compare.running.equal_time import FILE, share_of, with_steps
from softprompt.compare.running.executors import Serial
from softprompt.compare.search import trials_of
from softprompt.compare.splits import Splits
from softprompt.compare.trials import Trials
from softprompt.config.load import recipe_from_dict
from softprompt.errors import SoftPromptError

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss", "ox", "tree"]
FAST, SLOW = "prompt-tuning/after", "lora"


def share(budget: float, pace: Pace, seeds: int = 3, jobs: int = 4, readers=None):
    return share_of("a", budget, pace, seeds, jobs, readers or Counter())


# --- the arithmetic ---


def test_steps_are_inversely_proportional_to_the_pace():
    slow, fast = Pace(0.2, 0.8), Pace(0.05, 0.2)
    assert share(700, fast).steps == 4 * share(700, slow).steps == 2000  # 700 / (0.2 + 3 × 0.05)
    assert share(701, slow).seconds == pytest.approx(700)  # half a step more does not fit


@pytest.mark.parametrize("budget", [3.0, 51.0, 401.0, 601.0])
def test_the_plan_is_the_most_that_takes_no_longer_than_the_budget(budget):
    pace = Pace(0.3, 1.1, (CachePace(0.02),), rows=100, batch=8)

    def seconds(steps: int) -> float:
        cached = sum(0.02 for _ in range(min(100, steps * 8))) * 4  # in each of four jobs
        return steps * 1.1 + 3 * steps * 0.3 + cached

    steps = next(n for n in range(1, 10_000) if seconds(n + 1) > budget)
    assert share(budget, pace).steps == steps
    assert share(budget, pace).seconds == pytest.approx(seconds(steps))


def test_a_cache_on_disk_counts_once_for_all_who_read_it():
    pace = Pace(0.1, 0.1, (CachePace(0.5, "kv"),), rows=40, batch=40)
    alone, shared = (share(100, pace, seeds=0, readers=Counter({"kv": n})) for n in (1, 2))
    assert alone.cache_seconds == alone.disk_seconds == pytest.approx(20)
    assert shared.cache_seconds == pytest.approx(10)  # both together: once
    assert (alone.steps, shared.steps) == (800, 900)
    memory = Pace(0.1, 0.1, (CachePace(0.5),), rows=40, batch=40)
    each = share(100, memory, seeds=0, jobs=3)
    assert each.cache_seconds == pytest.approx(60) and each.disk_seconds == 0


def test_a_budget_that_is_too_short_is_refused_with_one_that_will_do():
    pace = Pace(0.5, 2.0, (CachePace(0.1),), rows=1000, batch=8)
    with pytest.raises(SoftPromptError, match="too short for a") as error:
        share(3.0, pace)
    enough = float(error.value.fix.removeprefix("compare.budget=").partition("s")[0])
    assert share(enough, pace).steps >= 20


# --- a whole comparison ---


class Counting:
    """Serial that remembers its jobs."""

    workers = 1

    def __init__(self) -> None:
        self.jobs: list = []

    def run(self, work, jobs):
        self.jobs += jobs
        return Serial().run(work, jobs)

    def close(self) -> None:
        pass

    @property
    def trials(self) -> list:
        return [trial for job in self.jobs if isinstance(job, worker.Job) for trial in job.trials]


@pytest.fixture
def recipe(tmp_path, model_folder):
    """`recipe(compare, **sections)`: a contest of a fast and a slow method over thirty rows."""
    rows = [{"input": f"{WORDS[i % 10]} {i}", "target": ("good", "bad")[i % 2]} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(compare=None, **sections):
        compare = {
            "methods": [FAST, SLOW, "zero-shot"],
            "rates": [1e-2, 3e-2],
            "base_rates": [1e-3, 1e-2],
            "seeds": 2,
            "control": False,
            "serving": False,
            **(compare or {}),
        }
        whole = {
            "model": str(model_folder),
            "data": {"train": str(tmp_path / "rows.jsonl")},
            "task": {"kind": "classification", "labels": ["good", "bad"]},
            "method": {"name": "prompt-tuning", "length": 3},
            "train": {"steps": 4, "batch_size": 4, "dtype": "float32"},
            "output": str(tmp_path / "out"),
            "compare": compare,
        }
        return recipe_from_dict({**whole, **sections})

    return make


@pytest.fixture
def paces(monkeypatch):
    """`paces(scale)`: a step of LoRA takes three times one of the other; `paces.timed`: those measured."""

    def use(scale: float = 1.0, fails: str = ""):
        def measured(stages, more=0, *, evaluates=False):
            mode = stages[0].recipes[0]["base"]["mode"]
            use.timed.append(mode)
            if mode == fails:
                raise SoftPromptError("it has no such rank")
            step = scale * (3.0 if mode == "lora" else 1.0)
            return Pace(step, 2 * step)

        monkeypatch.setattr(timing, "measure", measured)

    use.timed = []
    return use


def run(recipe):
    notes: list[str] = []
    runner = Counting()
    done = compare(recipe, on=runner, report=False, hooks=Hooks(on_stage=notes.append))
    return done, runner, notes


def steps_of(trials) -> dict[str, set[int]]:
    steps: dict[str, set[int]] = {}
    for trial in trials:
        if trial.phase in ("search", "final"):
            steps.setdefault(trial.contestant, set()).add(trial.recipe["train"]["steps"])
    return steps


@pytest.mark.whole
def test_equal_seconds_are_planned_written_down_and_kept(recipe, paces):
    paces()
    done, runner, notes = run(recipe({"budget": "36s", "seeds": 1}))
    assert done.failed == 0
    assert steps_of(runner.trials) == {FAST: {12}, SLOW: {4}}  # 36 / (2 + 1) and a third of it
    assert any("few steps" in note and f"{SLOW} 4" in note for note in notes)
    assert not any(job.prune for job in runner.jobs if isinstance(job, worker.Job))
    plan = json.loads((done.folder / FILE).read_text())
    assert {each["method"]: each["steps"] for each in plan.values()} == {FAST: 12, SLOW: 4}
    study = json.loads((done.folder / "study.json").read_text())
    assert study["budget"]["seconds"] == 36 and study["budget"]["steps"] == {FAST: 12, SLOW: 4}
    found = comparison(done.folder)
    # the seconds of steps, at each score of the dev rows
    finals = [trial for trial in found.trials if trial.phase == "final"]
    assert {trial.contestant: len(trial.history) for trial in finals} == {FAST: 12, SLOW: 4}
    for trial in finals:
        seconds = [entry["seconds"] for entry in trial.history]
        assert seconds == sorted(seconds) and seconds[0] > 0
        assert all("accuracy" in entry for entry in trial.history)
    spent = {each.contestant: each for each in found.times}
    assert set(spent) == {FAST, SLOW}
    for name, each in spent.items():
        own = [t for t in found.trials if t.contestant == name and t.phase in ("search", "final")]
        assert len(own) == 3
        assert each.seconds == pytest.approx(sum(t.history[-1]["seconds"] for t in own))
        assert each.planned_seconds == pytest.approx(36) and each.budget_seconds == 36
    # a slower machine continues with the plan that is there
    paces(scale=2.0)
    paces.timed.clear()
    again, second, _ = run(recipe({"budget": "36s", "seeds": 1}))
    assert again.ran == 0 and not second.trials and not paces.timed


@pytest.fixture
def planned(recipe):
    """`planned(recipe)`: the steps of each method, and the notes, without any trial."""
    looks: dict = {}

    def make(whole):
        folder = Folder(f"{whole.output}-compare")
        if not looks:
            looks.update(worker.run(worker.FirstLook(str(folder.path), whole.to_dict())))
        timed = equal_time.plan(whole, candidates_of(whole), Splits(**looks), folder, Serial())
        steps = {item.name: item.recipe.train.steps for item in with_steps(candidates_of(whole), timed)}
        return {name: n for name, n in steps.items() if name != "zero-shot"}, timed.notes

    return make


def test_what_is_planned_stays_whatever_is_added(recipe, paces, planned):
    paces()
    assert planned(recipe({"budget": "48s"}))[0] == {FAST: 12, SLOW: 4}  # 48 / (2 + 2)
    paces(scale=2.0)
    paces.timed.clear()
    more = {"methods": [FAST, SLOW, "prefix-tuning/before"]}
    assert planned(recipe({"budget": "48s", **more}))[0] == {FAST: 12, SLOW: 4, "prefix-tuning/before": 6}
    assert paces.timed == ["frozen"]
    # another budget, another number of seeds and another batch are other plans, and leave the first as it is
    assert planned(recipe({"budget": "96s"}))[0] == {FAST: 12, SLOW: 4}
    assert planned(recipe({"budget": "48s", "seeds": 1}))[0] == {FAST: 8, SLOW: 2}
    train = {"batch_size": 8, "dtype": "float32"}
    assert planned(recipe({"budget": "48s"}, train=train))[0] == {FAST: 6, SLOW: 2}
    assert planned(recipe({"budget": "48s"}, train={**train, "steps": 9}))[0] == {FAST: 6, SLOW: 2}
    paces(scale=4.0)
    assert planned(recipe({"budget": "48s"}))[0] == {FAST: 12, SLOW: 4}
    file = Folder(f"{recipe().output}-compare").path / FILE
    file.write_text(file.read_text()[:-9])  # damaged
    assert planned(recipe({"budget": "48s"}))[0] == {FAST: 3, SLOW: 1}


def test_a_method_that_cannot_be_timed_stops_no_other(recipe, paces, planned):
    paces(fails="lora")
    steps, notes = planned(recipe({"budget": "16s"}))
    assert steps == {FAST: 4, SLOW: 4}
    assert "lora: its pace could not be measured (it has no such rank)" in notes
    paces()
    assert planned(recipe({"budget": "16s"}))[0] == {FAST: 4, SLOW: 1}  # the next call tries again
    paces(fails="lora")
    with pytest.raises(SoftPromptError, match="pace of no method") as error:
        planned(recipe({"budget": "17s", "methods": [SLOW]}))
    assert "no such rank" in error.value.why


def test_references_alone_need_no_plan(recipe, paces):
    paces()
    done, _, _ = run(recipe({"budget": "16s", "methods": ["zero-shot"]}))
    assert not paces.timed and comparison(done.folder).times == []
    assert [score.contestant for score in comparison(done.folder).scores if score.split == "test"] == [
        "zero-shot"
    ]
    assert price(recipe({"budget": "16s", "methods": ["zero-shot"]})) == ([], [])


def test_a_method_with_steps_of_its_own_has_no_budget(recipe, paces, planned):
    paces()
    methods = {FAST: {}, "longer": {"method": FAST, "train.steps": 9}}
    with pytest.raises(SoftPromptError, match="longer steps of its own"):
        planned(recipe({"budget": "16s", "methods": methods}))


def test_without_a_budget_nothing_is_timed_and_trials_keep_their_names(recipe, paces, monkeypatch):
    paces()
    plain = recipe()
    assert "budget" not in plain.to_dict()["compare"]

    class Enough(Exception):
        pass

    class Stopped(Counting):
        def run(self, work, jobs):
            self.jobs += jobs
            if any(isinstance(job, worker.Job) and job.trials[0].phase == "search" for job in jobs):
                raise Enough
            return Serial().run(work, jobs)

    runner = Stopped()
    with pytest.raises(Enough):
        compare(plain, on=runner)
    assert not paces.timed
    folder = Folder(f"{plain.output}-compare")
    assert not (folder.path / FILE).exists()
    splits = Splits(**_splits(runner))
    first = candidates_of(plain)[0]
    expected = [Trials(folder, splits).training(first, "search", {first.rate: r}, 0).id for r in first.rates]
    assert [t.id for t in runner.trials if t.contestant == FAST] == expected
    assert steps_of(runner.trials)[FAST] == {4}


def _splits(runner) -> dict:
    look = next(job for job in runner.jobs if isinstance(job, worker.FirstLook))
    return worker.run(look)


def test_a_comparison_is_priced_and_nothing_is_written(recipe, paces):
    paces()
    plain = recipe({"budget": "48s"})
    prices, notes = price(plain)
    assert {each.share.method: each.share.steps for each in prices} == {FAST: 12, SLOW: 4}
    assert [each.trainings for each in prices] == [4, 4] and notes
    assert not Folder(f"{plain.output}-compare").path.exists()


# --- the measuring ---


@pytest.mark.parametrize("name", [FAST, "prefix-tuning/before", SLOW])
def test_paces_are_measured_on_the_rows(recipe, tmp_path, name):
    plain = recipe({"methods": [name], "lengths": [2, 5]})
    item = candidates_of(plain)[0]
    first = item.with_settings({item.rate: 1e-3}).to_dict()
    lengths = [item.with_settings({item.rate: 1e-3, item.length: n}).to_dict() for n in (2, 5)]
    pace = timing.measure([Stage((first,), 2), Stage(tuple(lengths))], evaluates=True)
    assert trials_of(item, plain.compare) == 4
    assert pace.step > 0 and pace.search > 0 and pace.evaluation > 0
    assert (pace.batch, bool(pace.caches)) == (4, name == FAST)
    assert pace.rows == len({row.split('"')[3] for row in (tmp_path / "rows.jsonl").open()}) - 4
