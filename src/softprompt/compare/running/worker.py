"""A worker runs one job: trials from their plain values to their records on disk.

A failure is a record too: what failed, why, and how to fix it. It stops nothing else. A trial with a record
does not run again, except after a failure that was not its own (memory, a bug, a killed process).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import SoftPromptError
from ..records.pace import Pace, Stage
from ..records.phase import PHASES
from ..records.store import Folder
from ..records.types import Record, Result, TrialError
from ..trials import Trial

KEPT_LINES = 12  # of a traceback
LEFT_OUT = "left out"  # for want of time: such a trial has no record on disk


@dataclass(frozen=True)
class Job:
    """A job is a list of trials that run in one process, side by side where they can."""

    folder: str
    trials: tuple[Trial, ...]
    prune: bool = False
    rivals: tuple[str, ...] = ()  # ids of the trials that pruning looks at
    threads: int | None = None
    until: float | None = None  # `time.time()` after which no trial begins, and a search is stopped
    within: float | None = None  # what the comparison may take: a search that it stopped gets more next time


@dataclass(frozen=True)
class FirstLook:
    """A first look splits the rows and looks at the base model, before any trial."""

    folder: str
    recipe: dict[str, Any]
    threads: int | None = None


@dataclass(frozen=True)
class Timing:
    """A timing measures the pace of one method, before any trial. For its parts see `phases.pace.measure`."""

    stages: tuple[Stage, ...]
    more: int = 0
    evaluates: bool = False
    threads: int | None = None


def run(job: Job | FirstLook | Timing) -> Any:
    """Run what a worker is sent: return the records of a job's trials, the splits, or a method's pace."""
    from ..._system import threads

    threads.use(job.threads)
    if isinstance(job, FirstLook):
        return survey(job)
    if isinstance(job, Timing):
        return _measured(job)
    return run_trials(job)


def survey(job: FirstLook) -> dict[str, Any]:
    """Split the rows, and return the splits as plain values. Raises SoftPromptError."""
    from ...build import template_of
    from ...config.load import recipe_from_dict
    from ...data.labels import distinct_labels
    from ...data.sources import read_rows
    from ...lm.from_recipe import load_base
    from ..phases.model_pool import kept
    from ..splits import lay

    recipe = recipe_from_dict(job.recipe)
    if recipe.task.needs_head:  # its size is the number of labels
        labels = recipe.task.labels
        if labels is None and recipe.task.kind != "regression":
            labels = distinct_labels(read_rows(recipe.data.train), template_of(recipe))
        lm = load_base(recipe, labels)
    else:
        lm = kept(recipe)
    return asdict(lay(recipe, lm, Folder(job.folder)))


def _measured(job: Timing) -> Pace:
    from ..phases import pace

    return pace.measure(job.stages, job.more, evaluates=job.evaluates)


def run_trials(job: Job) -> list[Record]:
    """Return every trial's record, in their order. If several fail together, each is tried alone."""
    folder = Folder(job.folder)
    records = {t.id: record for t in job.trials if (record := settled(folder, t.id, job.within))}
    todo = [trial for trial in job.trials if trial.id not in records]
    for group in _groups(todo):
        if job.until is not None and time.time() >= job.until:
            records |= {t.id: Record(**head(t), status=LEFT_OUT, error=None) for t in group}
        else:
            records |= {record["id"]: record for record in _tried(group, job, folder)}
    return [records[trial.id] for trial in job.trials]


def settled(folder: Folder, id: str, within: float | None = 0.0) -> Record | None:
    """Return the record of a trial that need not run again; one that time stopped runs again in more time."""
    record = folder.read(id)
    if record is None or (record["error"] and record["error"].get("again")):
        return None
    if "cut_within" in record and (within is None or within > record["cut_within"]):
        return None
    return record


def _groups(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Group the trials that train side by side: on the same rows, over a base that stays as it is."""
    together = [t for t in trials if PHASES[t.phase].side_by_side and _shares_base(t)]
    rows = {trial.rows for trial in together}
    alone = [[trial] for trial in trials if trial not in together]
    return [*([t for t in together if t.rows == count] for count in sorted(rows, key=str)), *alone]


def _shares_base(trial: Trial) -> bool:
    task = trial.recipe["task"]
    head = task["head"] or task["kind"] in ("token-classification", "regression")
    return trial.recipe["base"]["mode"] == "frozen" and not head


def _tried(trials: Sequence[Trial], job: Job, folder: Folder) -> list[Record]:
    from ..phases.train import drop_checkpoint

    try:
        results = _results(trials, job, folder)
    except Exception as error:
        if len(trials) > 1:
            return [record for trial in trials for record in _tried([trial], job, folder)]
        if isinstance(error, SoftPromptError) and drop_checkpoint(folder, trials[0]):
            return _tried(trials, job, folder)  # the checkpoint of a moved folder is refused
        results = [failure(_described(error))]
    records = []
    for trial, result in zip(trials, results, strict=True):
        ended = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        record = Record(**{**head(trial), **result, "ended": ended})  # type: ignore[typeddict-item]
        if record.pop("cut", False) and job.within is not None:
            record["cut_within"] = job.within
        folder.write(record)
        records.append(record)
    # after all are written: after a kill before this, the other records are made from the prompts
    for record in records:
        if not (record["error"] or {}).get("again"):
            folder.tidy(record)
    return records


def _results(trials: Sequence[Trial], job: Job, folder: Folder) -> list[Result]:
    from ..phases.train import Options

    phase = PHASES[trials[0].phase]
    if not phase.is_training:
        return [phase.function()(trial, folder) for trial in trials]
    seconds = None
    if job.until is not None and phase.is_pruned:
        seconds = max(0.0, job.until - time.time())
    return phase.function()(trials, folder, Options(job.prune and phase.is_pruned, job.rivals, seconds))


def head(trial: Trial) -> dict[str, Any]:
    """Return what a record says of its trial."""
    keys = ("id", "contestant", "phase", "settings", "seed", "rows", "about")
    return {key: getattr(trial, key) for key in keys}


def failure(error: TrialError) -> Result:
    """Return the result of a trial that failed."""
    return {"status": "failed", "error": error, "dev": {}, "cost": {}, "history": []}


def _described(error: Exception) -> TrialError:
    """Describe an error of ours by its own words; a bug or want of memory by its place, to be tried again."""
    import traceback

    if isinstance(error, SoftPromptError):
        return {"what": error.what, "why": error.why, "fix": error.fix}
    lines = traceback.format_exception(error)
    where = traceback.extract_tb(error.__traceback__)
    place = f"in {Path(where[-1].filename).name}, line {where[-1].lineno}" if where else ""
    message = "memory ran out" if isinstance(error, MemoryError) else lines[-1].strip()
    fix = "run the same command again; it tries this trial again"
    if "memory" in message.lower():
        fix = "a smaller train.batch_size, or compare.workers=1"
    text = "".join(lines).splitlines()[-KEPT_LINES:]
    return {"what": message, "why": place, "fix": fix, "again": True, "traceback": text}
