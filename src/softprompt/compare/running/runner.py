"""Runs the phases of a comparison one after the other, and keeps the records of their trials.

Trials run wherever the executor runs them; here it is only decided which are next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ...evaluation.metrics import METRICS
from ..manifest import Study
from ..records.phase import PHASES
from ..records.types import Record
from ..search import STAGES, Search, clear, trials_of
from ..trials import Trial
from . import worker
from .executors import Executor
from .schedule import Best, Counts, Finals, Schedule
from .time_budget import Allowance, final_seconds, score_seconds
from .worker import LEFT_OUT, Job, failure, settled

_STAGES = {"rate": "search: learning rates", "length": "search: lengths", "init": "search: starts"}


@dataclass
class Hooks:
    """Functions that a caller gives to follow a comparison. Every hook may be left out."""

    on_stage: Callable[[str], None] = lambda text: None
    on_plan: Callable[[Counts], None] = lambda counts: None  # trials to come, those that ran before included
    on_record: Callable[[Record, bool], None] = lambda record, was_there: None


class PhaseRunner:
    """Decides which trials are next, and keeps their records."""

    def __init__(
        self, study: Study, runner: Executor, hooks: Hooks, started: float, search_only: bool = False
    ) -> None:
        self._study, self._runner, self._hooks, self._search_only = study, runner, hooks, search_only
        self._config, self._schedule = study.recipe.compare, Schedule(study)
        self.records: dict[str, Record] = {}
        self.ran = 0
        used = (study.about.get("seconds") or 0.0) + time.monotonic() - started
        self._time = Allowance(self._config.within, used, max(1, runner.workers))
        self._unrun: dict[str, int] = {}  # trials by phase
        self.on_record: Callable[[], None] = lambda: None

    def run(self) -> None:
        """Run every phase, each after the one before it."""
        schedule = self._schedule
        self._hooks.on_plan(self.plan())
        self._run_alone("reference", schedule.references())
        best = self._search()
        if self._search_only:
            return
        finals = self._train_finals(best)
        scores = self._score_seconds(sum(map(len, finals.values())))
        self._run("curve", map(self._job, schedule.curves(best)), until=self._time.until(scores))
        # no model has seen a test row before this line
        self._run("score", [self._job(trials) for trials in schedule.scores(finals) if trials])
        self._run_alone("measure", schedule.measures(finals))
        self._run_alone("growth", schedule.growth(best, finals))
        self._run_alone("newcomer", schedule.newcomers(best, finals))

    def plan(self) -> Counts:
        """Return how many trials each candidate has in each phase, if all succeed."""
        counts = self._schedule.counts()
        if self._search_only:
            return {(name, p): n for (name, p), n in counts.items() if p in ("reference", "search")}
        return counts

    def left_out(self) -> list[str]:
        """Return, in words, what there was no time for."""
        trials = [f"{count} of phase {phase}" for phase, count in self._unrun.items()]
        return [*self._time.left_out, *trials]

    def _search(self) -> Best:
        """Return the best settings of each candidate; those of which every trial failed are left out."""
        journal = self._study.folder.path / "search.journal"
        clear(journal)
        maximise = METRICS[self._study.metric].higher_is_better
        searches = [Search(c, self._config, journal, maximise) for c in self._schedule.methods]
        for stage in STAGES:
            tried = [
                (search, settings, self._schedule.search(search.contestant, settings))
                for search in searches
                for settings in search.stage(stage)
            ]
            jobs = []
            for candidate in self._schedule.methods:
                trials = [trial for _, _, trial in tried if trial.contestant == candidate.name]
                # those that train the base cannot share it, and so may run in several processes
                parts = [[t] for t in trials] if candidate.trains_base else [trials] * bool(trials)
                jobs += [self._job(part, tuple(t.id for t in trials)) for part in parts]
            reserved = 0.0 if self._search_only else self._reserved()
            self._run("search", jobs, _STAGES[stage], reserved=reserved)
            for search, settings, trial in tried:
                if trial.id in self.records:
                    search.tell(settings, self.records[trial.id])
        return {s.contestant.name: best for s in searches if (best := s.best()) is not None}

    def _train_finals(self, best: Best) -> Finals:
        """Train seed by seed, as long as there is time, so that all candidates have as many seeds."""
        searched: dict[str, list[Record]] = {name: [] for name in best}
        for record in self.records.values():
            if record["phase"] == "search" and record["contestant"] in best:
                searched[record["contestant"]].append(record)
        steps = {item.name: item.recipe.train.steps for item in self._schedule.methods}
        seconds = {name: final_seconds(records, steps[name]) for name, records in searched.items()}
        trials = self._schedule.finals(best)
        seeds = self._schedule.seeds
        rounds = self._time.rounds(seconds, self._score_seconds(1), len(seeds))
        chosen = [trials[name, seed] for seed, names in zip(seeds, rounds, strict=False) for name in names]
        # those with a record cost nothing
        known = [trial for trial in trials.values() if settled(self._study.folder, trial.id)]
        chosen += [trial for trial in known if trial not in chosen]
        self._run_alone("final", chosen)
        finals: dict[str, list[Trial]] = {candidate.name: [] for candidate in self._schedule.methods}
        for trial in trials.values():
            if trial.id in self.records and self.records[trial.id]["status"] == "done":
                finals[trial.contestant].append(trial)
        return finals

    def _reserved(self) -> float:
        """Return the seconds that the search leaves to the scores and a final training of each method."""
        methods = self._schedule.methods
        whole = self._score_seconds(len(methods))
        tries = max((trials_of(candidate, self._config) for candidate in methods), default=1)
        finals = max(0.0, self._time.left() - whole) / (tries / 2 + 1) if self._config.within else 0.0
        return whole + finals

    def _score_seconds(self, finals: int) -> float:
        """Return the seconds that scoring so many finals takes, estimated from the references."""
        counts = self._study.splits.counts
        references = [r for r in self.records.values() if r["phase"] == "reference"]
        rows = sum(counts[split] for split in self._study.splits.measured)
        return finals * score_seconds(references, counts["dev"], rows) / self._time.workers

    def _job(self, trials: Sequence[Trial], rivals: tuple[str, ...] = ()) -> Job:
        config, threads = self._config, self._study.recipe.train.threads
        folder = str(self._study.folder.path)
        # at equal time a trial that is behind takes its seconds too
        prune = config.prune and config.budget is None
        return Job(folder, tuple(trials), prune, rivals, threads, within=config.within)

    def _run_alone(self, phase: str, trials: Iterable[Trial]) -> None:
        """Run trials, each as a job of its own."""
        self._run(phase, [self._job([trial]) for trial in trials])

    def _run(
        self,
        phase: str,
        jobs: Iterable[Job],
        title: str = "",
        *,
        until: float | None = None,
        reserved: float | None = None,
    ) -> None:
        """Run the jobs that have trials without a record, and keep all records.

        No job begins after `until` (default: the end of the time). With `reserved` seconds kept for later
        phases the jobs share what is left.
        """
        folder, todo = self._study.folder, []
        for job in jobs:
            known = [settled(folder, trial.id, self._config.within) for trial in job.trials]
            for record in known:
                if record is not None:
                    folder.tidy(record)  # for a kill between the record and this
                    self._keep(record, True)
            if any(record is None for record in known):
                todo.append(job)
        if not todo:
            return
        self._hooks.on_stage(title or PHASES[phase].title)
        ends = [until or self._time.until()] * len(todo)
        if reserved is not None:
            ends = self._time.shared(len(todo), reserved)
        todo = [replace(job, until=end) for job, end in zip(todo, ends, strict=True)]
        for number, result in self._runner.run(worker.run, todo):
            records = result if not isinstance(result, Exception) else self._lost(todo[number], result)
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
        """Return the records of a job whose process died: those that it wrote, and failures."""
        records = []
        for trial in job.trials:
            record = settled(self._study.folder, trial.id)
            if record is None:
                result = failure(
                    {
                        "what": str(error) or type(error).__name__,
                        "why": "memory may have run out, or somebody ended it",
                        "fix": "run the same command again with compare.workers=1, or a smaller "
                        "train.batch_size",
                        "again": True,
                    }
                )
                record = Record(**{**worker.head(trial), **result})
                self._study.folder.write(record)
            records.append(record)
        return records
