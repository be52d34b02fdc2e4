"""A comparison from its recipe to its report: which trials, in which order, and what is made of them.

    survey ─► references ─► search (rate, length, init) ─► finals (seeds) ─► curves
           ─► scores on test and unseen ─► measures ─► tables of prompts
           ─► statistics ─► results.jsonl, examples.jsonl ─► report

Trials run wherever the executor runs them; here it is only decided what is next. Killed at any time, the same
call goes on: a trial that has a record is not run again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .._system.progress import task
from .._system.run_lock import held
from ..config.schema import Recipe
from ..errors import SoftPromptError
from ..evaluation.metrics import METRICS
from . import worker as running
from .candidates import Candidate, contestants
from .executors import Executor, executor
from .manifest import Study
from .phases.prompt_counts import sizes, tables
from .search import STAGES, Search, Settings, clear, trials_of
from .splits import Splits
from .store import Folder, Record
from .time_budget import Allowance, final_seconds, score_seconds
from .trials import Table, Trial, Trials
from .worker import LEFT_OUT, FirstLook, Job, failure, settled

MANIFEST = "softprompt.json"  # of a tuned prompt: its folder is no place for a comparison
PHASES = ("reference", "search", "final", "curve", "score", "measure", "growth", "newcomer")
Counts = dict[tuple[str, str], int]  # by contestant and phase


@dataclass
class Hooks:
    """How a caller follows a comparison. Every hook may be left out."""

    on_stage: Callable[[str], None] = lambda text: None
    on_plan: Callable[[Counts], None] = lambda counts: None  # trials to come, those that were run included
    on_record: Callable[[Record, bool], None] = lambda record, was_there: None
    on_start: Callable[[Sequence[Trial]], None] = lambda trials: None


@dataclass(frozen=True)
class Compared:
    """What a comparison gives back."""

    folder: Path
    page: Path | None  # the report, where it was asked for
    trials: int
    ran: int  # of them, in this call
    failed: int
    seconds: float  # of this call
    left_out: tuple[str, ...] = ()  # for want of time (`compare.within`)


def compare(
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    workers: int | None = None,
    on: Executor | None = None,
    hooks: Hooks | None = None,
    report: bool = True,
    source: str = "",
    since: float | None = None,
    search_only: bool = False,
) -> Compared:
    """Run what the recipe's `compare` section asks, and write the report.

    `on` is where trials run (by default what the recipe says), `source` the recipe's file; time counts from
    `since` (`time.monotonic`; by default now). With `search_only` it ends after the search: no final is
    trained, and no test row is shown to a model. Raises SoftPromptError for a recipe, rows or a model that
    cannot be used; what goes wrong in a trial is in the results instead.
    """
    from . import results

    hooks, started = hooks or Hooks(), time.monotonic() if since is None else since
    place = Folder(folder or recipe.compare.output or f"{recipe.output}-compare")
    if (place.path / MANIFEST).exists():
        raise SoftPromptError(
            f"{place.path} holds a tuned prompt",
            why="a comparison has many files of its own",
            fix="choose another folder: compare.output=runs/compare",
        )
    who = contestants(recipe)
    runner = on or executor(recipe.compare.executor, workers or recipe.compare.workers, recipe.train.threads)
    lock = contextlib.ExitStack()
    try:
        lock.enter_context(held([place.path]))
        hooks.on_stage(f"reading the rows and loading {recipe.model} …")
        ground = _survey(recipe, place, runner)
        if recipe.compare.goal is not None:
            hooks.on_stage("note: compare.goal has no effect any more; remove it from the recipe")
        for text in ground.remarks:
            hooks.on_stage(f"note: {text}")
        study = Study.begin(recipe, who, ground, place, source, started)
        engine = _Engine(study, runner, hooks, started, search_only)
        with task("trial", sum(engine.plan().values())) as own:
            engine.on_record = lambda: own.at(len(engine.records))
            engine.run()
    finally:
        if on is None:
            runner.close()
        lock.close()
    hooks.on_stage("statistics")
    study.count_time()
    study.leave_out(engine.left_out())
    results.write(study, engine.outcomes())
    page = None
    if report:
        from . import report as reports

        hooks.on_stage("report")
        page = reports.write(place.path)
    records = engine.records.values()
    failed = sum(record["status"] == "failed" for record in records)
    took = time.monotonic() - started
    return Compared(place.path, page, len(records), engine.ran, failed, took, tuple(engine.left_out()))


def _survey(recipe: Recipe, folder: Folder, runner: Executor) -> Splits:
    """Rows and base, looked at in a worker, which keeps the base for the trials."""
    # as it is before anybody trains it
    asked = recipe.model_copy(update={"base": type(recipe.base)()})
    before = folder.path / "study.json"
    if recipe.train.dtype == "auto" and before.exists():
        # `auto` depends on the machine; on another one, trials would be run again
        try:
            dtype = json.loads(before.read_text(encoding="utf-8"))["dtype"]
        except (ValueError, KeyError):
            dtype = "auto"
        asked = asked.model_copy(update={"train": recipe.train.model_copy(update={"dtype": dtype})})
    job = FirstLook(str(folder.path), asked.to_dict(), recipe.train.threads)
    ((_, found),) = runner.run(running.run, [job])
    if isinstance(found, Exception):
        raise found
    return Splits(**found)


class _Engine:
    """Decides what is next, and keeps what came out."""

    def __init__(
        self, study: Study, runner: Executor, hooks: Hooks, started: float, search_only: bool = False
    ) -> None:
        recipe, who = study.recipe, study.who
        self._study, self._recipe, self._how, self._who = study, recipe, recipe.compare, who
        self._ground, self._folder, self._runner, self._hooks = study.ground, study.folder, runner, hooks
        self._trials = Trials(self._folder, self._ground)
        self._methods = [one for one in who if not one.is_reference]
        self._references = [one for one in who if one.is_reference]
        first = recipe.train.seed
        self.seeds = list(range(first, first + self._how.seeds))
        self._search_only = search_only
        self.records: dict[str, Record] = {}
        self.ran = 0
        self._finals: dict[str, list[Trial]] = {one.name: [] for one in self._methods}
        used = (study.about.get("seconds") or 0.0) + time.monotonic() - started
        self._time = Allowance(self._how.within, used, max(1, runner.workers))
        self._unrun: dict[str, int] = {}  # trials by phase
        self.on_record: Callable[[], None] = lambda: None

    def run(self) -> None:
        """Every phase, each after the one before it."""
        self._hooks.on_plan(self.plan())
        self._do(
            "reference", [self._job([self._trials.reference(c, self.seeds[0])]) for c in self._references]
        )
        best = self._search()
        if self._search_only:
            return
        self._train_finals(best)
        scores = self._score_seconds(len([t for found in self._finals.values() for t in found]))
        self._do("curve", self._curves(best), until=self._time.until(scores))
        # no model has seen a test row before this line
        self._do("score", [self._job(self._scores(c)) for c in self._who if self._scores(c)])
        self._do("measure", [self._job([trial]) for trial in self._measures()])
        self._do("growth", [self._job([trial]) for trial in self._growth(best)])
        self._do("newcomer", [self._job([trial]) for trial in self._newcomers(best)])

    def _train_finals(self, best: dict[str, Settings]) -> None:
        """Seed by seed, as far as the time goes, so that all have as many."""
        took = {
            c.name: final_seconds(
                [r for r in self.records.values() if (r["contestant"], r["phase"]) == (c.name, "search")],
                self._recipe.train.steps,
            )
            for c in self._methods
            if c.name in best
        }
        finals = {
            (c.name, seed): self._trials.training(c, "final", best[c.name], seed)
            for c in self._methods
            for seed in self.seeds
            if c.name in best
        }
        known = [t for t in finals.values() if settled(self._folder, t.id)]
        rounds = self._time.rounds(took, self._score_seconds(1), len(self.seeds))
        chosen = [
            finals[name, seed] for seed, names in zip(self.seeds, rounds, strict=False) for name in names
        ]
        # what is there already costs nothing
        chosen += [trial for trial in known if trial not in chosen]
        self._do("final", [self._job([trial]) for trial in chosen], until=self._time.until())
        for trial in finals.values():
            if self.records.get(trial.id, {}).get("status") == "done":
                self._finals[trial.contestant].append(trial)

    def _score_seconds(self, finals: int) -> float:
        """Of scoring so many of them on test and unseen rows, by the references."""
        counts = self._ground.counts
        references = [r for r in self.records.values() if r["phase"] == "reference"]
        rows = sum(counts[split] for split in self._ground.measured)
        return finals * score_seconds(references, counts["dev"], rows) / self._time.workers

    def left_out(self) -> list[str]:
        """What there was no time for, in words."""
        trials = [f"{count} of phase {phase}" for phase, count in self._unrun.items()]
        return [*self._time.left_out, *trials]

    def outcomes(self) -> list[Record]:
        """All records, in the order in which their trials were made."""
        return list(self.records.values())

    def _search(self) -> dict[str, Settings]:
        """The best settings of each contestant; those of which every trial failed are left out."""
        journal = self._folder.path / "search.journal"
        clear(journal)
        maximise = METRICS[self._ground.metrics[0]].higher_is_better
        searches = [Search(one, self._how, journal, maximise) for one in self._methods]
        for stage in STAGES:
            asked = [(search, settings) for search in searches for settings in search.stage(stage)]
            made = [
                self._trials.training(s.contestant, "search", settings, self.seeds[0])
                for s, settings in asked
            ]
            jobs = []
            for one in self._methods:
                own = [t for t in made if t.contestant == one.name]
                # those that train the base cannot share it, and so may run beside each other
                parts = [[t] for t in own] if one.trains_base else [own] * bool(own)
                jobs += [self._job(part, tuple(t.id for t in own)) for part in parts]
            reserved = 0.0 if self._search_only else self._reserved()
            self._do("search", jobs, stage, reserved=reserved)
            for (search, settings), trial in zip(asked, made, strict=True):
                if trial.id in self.records:
                    search.tell(settings, self.records[trial.id])
        return {s.contestant.name: best for s in searches if (best := s.best()) is not None}

    def _reserved(self) -> float:
        """Seconds that the search leaves to the scores and to a final training of each method."""
        whole = self._score_seconds(len(self._methods))
        tries = max((trials_of(one, self._how) for one in self._methods), default=1)
        finals = max(0.0, self._time.left() - whole) / (tries / 2 + 1) if self._how.within else 0.0
        return whole + finals

    def _curves(self, best: dict[str, Settings]) -> list[Job]:
        sizes = [rows for rows in self._how.curve if rows < self._ground.counts["train"]]
        return [
            self._job([self._trials.training(c, "curve", best[c.name], seed, rows) for seed in self.seeds])
            for c in self._methods
            if c.name in best
            for rows in dict.fromkeys(sizes)
        ]

    def _scores(self, one: Candidate) -> list[Trial]:
        finals = [None] if one.is_reference else self._finals[one.name]
        return [
            self._trials.score(one, split, final, self.seeds[0])
            for final in finals
            for split in self._ground.measured
        ]

    def _measures(self) -> list[Trial]:
        """Of each contestant's first final."""
        from .phases.measure import CONTROL

        how = self._how
        control = list(CONTROL) if how.control is True else list(how.control or [])
        if len(self._ground.prompts) < 2:
            control = [name for name in control if name not in ("swap", "composition")]
        if how.constraint is None:
            control = [name for name in control if name != "adherence"]
        if not control and not how.serving:
            return []
        what = {
            "control": control,
            "serving": how.serving,
            "rows": how.control_rows,
            "constraint": how.constraint,
        }
        return [
            self._trials.measure(c, self._finals[c.name][0], what)
            for c in self._methods
            if self._finals[c.name]
        ]

    def _growth(self, best: dict[str, Settings]) -> list[Trial]:
        """The watched prompts in tables of every size but that of all, which the finals have."""
        return [
            self._trials.growth(c, best[c.name], seed, table)
            for c in self._methods
            if self._finals[c.name]
            for table in self._tables()
            for seed in self.seeds
        ]

    def _tables(self) -> list[Table]:
        prompts = self._ground.prompts
        return [t for size in sizes(self._how.growth, len(prompts)) for t in tables(prompts, size)]

    def _newcomers(self, best: dict[str, Settings]) -> list[Trial]:
        """Beside every final, and the references once."""
        if not self._ground.newcomers:
            return []
        able = [one for one in self._references if one.name != "tf-idf"]  # which knows no prompts
        return [
            *(self._trials.newcomer(c, {}, self.seeds[0], None) for c in able),
            *(
                self._trials.newcomer(c, best[c.name], final.seed or 0, final)
                for c in self._methods
                for final in self._finals[c.name]
            ),
        ]

    def _job(self, trials: Sequence[Trial], rivals: tuple[str, ...] = ()) -> Job:
        return Job(
            str(self._folder.path),
            tuple(trials),
            self._how.prune,
            rivals,
            self._recipe.train.threads,
            within=self._how.within,
        )

    def _do(
        self,
        phase: str,
        jobs: Sequence[Job],
        stage: str = "",
        *,
        until: float | None = None,
        reserved: float | None = None,
    ) -> None:
        """Run the jobs that have trials without a record, and keep all records.

        None is begun after `until`, by itself the end of the time. With `reserved` seconds kept for later
        phases the jobs share what is left.
        """
        todo: list[Job] = []
        for job in jobs:
            known = [settled(self._folder, trial.id, self._how.within) for trial in job.trials]
            for record in known:
                if record is not None:
                    self._folder.tidy(record)  # where a kill came between the record and this
                    self._keep(record, True)
            if any(record is None for record in known):
                todo.append(job)
        if not todo:
            return
        self._hooks.on_stage(_STAGES.get(stage or phase, phase))
        ends = [until or self._time.until()] * len(todo)
        if reserved is not None:
            ends = self._time.shared(len(todo), reserved)
        todo = [replace(job, until=end) for job, end in zip(todo, ends, strict=True)]
        for number, found in self._runner.run(running.run, todo):
            records = found if not isinstance(found, Exception) else self._lost(todo[number], found)
            for record in records:
                if record["status"] == LEFT_OUT:
                    self._unrun[phase] = self._unrun.get(phase, 0) + 1
                elif record["id"] not in self.records:
                    self.ran += 1
                    self._keep(record, False)

    def _keep(self, record: Record, was_there: bool) -> None:
        self.records[record["id"]] = record
        if not was_there:
            self._study.count_time()
        self._hooks.on_record(record, was_there)
        self.on_record()

    def _lost(self, job: Job, error: Exception) -> list[Record]:
        """Records of a job whose process died: those that it wrote, and failures for the others."""
        found = []
        for trial in job.trials:
            record = settled(self._folder, trial.id)
            if record is None:
                told = {
                    "what": str(error) or type(error).__name__,
                    "why": "memory may have run out, or somebody ended it",
                    "fix": "run the same command again with compare.workers=1, or a smaller train.batch_size",
                    "again": True,
                }
                record = running.head(trial) | failure(told)
                self._folder.write(record)
            found.append(record)
        return found

    def plan(self) -> Counts:
        """How many trials each contestant has in each phase, if all go well."""
        how, splits = self._how, len(self._ground.measured)
        points = len({rows for rows in how.curve if rows < self._ground.counts["train"]})
        measured = 1 if how.control or how.serving else 0
        counts: Counts = {}
        grown, come = len(self._tables()), bool(self._ground.newcomers)
        for one in self._references:
            counts |= {(one.name, "reference"): 1, (one.name, "score"): splits}
            counts[one.name, "newcomer"] = int(come and one.name != "tf-idf")
        for one in self._methods:
            seeds = len(self.seeds)
            per = (
                *(trials_of(one, how), seeds, seeds * points, seeds * splits, measured),
                *(seeds * grown, seeds * come),
            )
            counts |= {(one.name, p): n for p, n in zip(PHASES[1:], per, strict=True)}
        if self._search_only:
            return {(name, p): n for (name, p), n in counts.items() if p in ("reference", "search")}
        return counts


_STAGES = {
    "reference": "references",
    "rate": "search: learning rates",
    "length": "search: lengths",
    "init": "search: starts",
    "final": "finals, with every seed",
    "curve": "learning curves",
    "score": "test and unseen rows",
    "measure": "control and serving",
    "growth": "tables of more and more prompts",
    "newcomer": "prompts never seen in training",
}
