"""A comparison runs from its recipe to its report.

    survey ─► references ─► search (rate, length, init) ─► finals (seeds) ─► curves
           ─► scores on test and unseen ─► measures ─► tables of prompts
           ─► statistics ─► results.jsonl, examples.jsonl ─► report

A call that was killed at any time continues when it is made again: a trial with a record does not run again.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path

from .._system.progress import task
from .._system.run_lock import held
from .._system.secrets import hub_token
from ..config.schema import Recipe
from ..errors import SoftPromptError
from ..tracking.registry import check
from .candidates import candidates_of
from .manifest import Before, Study
from .records.store import Folder
from .records.types import Record
from .running import equal_time, worker
from .running.executors import Executor, Serial, executor
from .running.importable import check_importable
from .running.runner import Counts, Hooks, PhaseRunner
from .running.worker import FirstLook
from .splits import Splits
from .tracked import tracked

__all__ = ["Compared", "Counts", "Hooks", "compare"]

MANIFEST = "softprompt.json"  # of a tuned prompt, whose folder cannot hold a comparison


@dataclass(frozen=True)
class Compared:
    """A comparison that has ended: where the results are, and how many trials ran."""

    folder: Path
    page: Path | None  # the report, if it was requested
    trials: int
    ran: int  # trials that ran in this call
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
    check(recipe.track)
    if recipe.task.objective == "distil":
        raise SoftPromptError(
            "a comparison does not measure how near methods come to a teacher",
            why="its statistics know answers and likelihoods, and no teacher's distributions",
            fix="softprompt search compares settings of one method; run softprompt distill once a method",
        )
    candidates = candidates_of(recipe)
    if not isinstance(on, Serial):
        check_importable(recipe, candidates)
    runner = on or executor(recipe.compare.executor, workers or recipe.compare.workers, recipe.train.threads)
    lock = contextlib.ExitStack()
    try:
        lock.enter_context(held([place.path]))
        lock.enter_context(hub_token(recipe.model.token))
        hooks.on_stage(f"reading the rows and loading {recipe.model} …")
        splits = _survey(recipe, place, runner)
        remarks = list(splits.remarks)
        if recipe.compare.goal is not None:
            remarks.append("compare.goal has no effect any more; remove it from the recipe")
        for text in remarks:
            hooks.on_stage(f"note: {text}")
        timed = None
        if recipe.compare.budget is not None:
            timed = equal_time.plan(
                recipe, candidates, splits, place, runner,
                search_only=search_only, say=hooks.on_stage,
            )  # fmt: skip
            candidates = equal_time.with_steps(candidates, timed)
            for text in timed.notes:
                hooks.on_stage(f"note: {text}")
        study = Study.begin(recipe, candidates, splits, place, source, started, timed)
        tracking = lock.enter_context(tracked(study))

        def on_record(record: Record, was_there: bool) -> None:
            tracking.record(record)
            hooks.on_record(record, was_there)

        engine = PhaseRunner(study, runner, replace(hooks, on_record=on_record), started, search_only)
        with task("trial", sum(engine.plan().values())) as progress:
            engine.on_record = lambda: progress.at(len(engine.records))
            engine.run()
        hooks.on_stage("statistics")
        study.count_time()
        study.leave_out(engine.left_out())
        records = list(engine.records.values())
        tracking.end(results.write(study, records))
    finally:
        if on is None:
            runner.close()
        lock.close()
    page = None
    if report:
        from . import report as reports

        hooks.on_stage("report")
        page = reports.write(place.path)
    failed = sum(record["status"] == "failed" for record in records)
    took = time.monotonic() - started
    return Compared(place.path, page, len(records), engine.ran, failed, took, tuple(engine.left_out()))


def _survey(recipe: Recipe, folder: Folder, runner: Executor) -> Splits:
    """Look at rows and base in a worker, which keeps the base for the trials."""
    plain = recipe.model_copy(update={"base": type(recipe.base)()})  # the base before anybody trains it
    before = Before.read(folder)
    if recipe.train.precision == "auto" and before.dtype is not None:
        # `auto` depends on the machine; on another one, trials would run again
        plain = plain.model_copy(update={"train": recipe.train.model_copy(update={"dtype": before.dtype})})
    job = FirstLook(str(folder.path), plain.to_dict(), recipe.train.threads)
    ((_, result),) = runner.run(worker.run, [job])
    if isinstance(result, Exception):
        raise result
    return Splits(**result)
