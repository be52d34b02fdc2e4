"""One job in a process of its own: trials from their plain values to their records on disk.

A failure is a record too: what, why and how to mend it. It stops nothing else. What has a record already is
not run again, but for failures that were not the trial's own (memory, a bug, a killed process).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SoftPromptError
from .store import Folder, Record
from .trials import Trial

KEPT_LINES = 12  # of a traceback
LEFT_OUT = "left out"  # for want of time: such a trial has no record on disk


@dataclass(frozen=True)
class Job:
    """Trials to be run in one process, the training ones side by side where they can."""

    folder: str
    trials: tuple[Trial, ...]
    prune: bool = False
    rivals: tuple[str, ...] = ()  # ids of trials that pruning looks at
    threads: int | None = None
    seconds: float | None = None  # of training, after which it is cut off; such a record is not kept
    until: float | None = None  # `time.time()` after which nothing is begun, and a search is cut off
    within: float | None = None  # what the comparison may take: a search that was cut off has more next time


@dataclass(frozen=True)
class FirstLook:
    """The first job: rows and base looked at once for all."""

    folder: str
    recipe: dict[str, Any]
    threads: int | None = None


def run(job: Job | FirstLook) -> Any:
    """What a worker is sent: records of the job's trials, or the ground that a survey found."""
    from .._system import threads

    threads.use(job.threads)
    if isinstance(job, FirstLook):
        return survey(job)
    return run_trials(job)


def survey(job: FirstLook) -> dict[str, Any]:
    """The ground, as plain values. Raises SoftPromptError."""
    from ..build import load_base, template_of
    from ..config.load import recipe_from_dict
    from ..data.labels import distinct_labels
    from ..data.sources import read_rows
    from . import splits
    from .model_pool import kept

    recipe = recipe_from_dict(job.recipe)
    if recipe.task.needs_head:  # whose size is that of the labels
        labels = recipe.task.labels
        if labels is None and recipe.task.kind != "regression":
            labels = distinct_labels(read_rows(recipe.data.train), template_of(recipe))
        lm = load_base(recipe, labels)
    else:
        lm = kept(recipe)
    return splits.to_json(splits.lay(recipe, lm, Folder(job.folder)))


def run_trials(job: Job) -> list[Record]:
    """Every trial's record, in their order. Where several fail together, each is tried alone."""
    folder = Folder(job.folder)
    known = {trial.id: record for trial in job.trials if (record := settled(folder, trial.id, job.within))}
    todo = [trial for trial in job.trials if trial.id not in known]
    for group in _groups(todo):
        if job.until is not None and time.time() >= job.until:
            known |= {trial.id: {**head(trial), "status": LEFT_OUT} for trial in group}
            continue
        for record in _tried(group, job, folder):
            known[record["id"]] = record
    return [known[trial.id] for trial in job.trials]


def settled(folder: Folder, id: str, within: float | None = 0.0) -> Record | None:
    """The record of a trial that need not be run again; one that was cut off is, where there is more time."""
    record = folder.read(id)
    if record is None or (record["status"] == "failed" and record["error"].get("again")):
        return None
    if "cut_within" in record and (within is None or within > record["cut_within"]):
        return None
    return record


def _groups(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Which are trained side by side: all of the search, and of a curve, over a base that stays as it is."""
    together = [t for t in trials if t.phase in ("search", "curve") and _shares_base(t)]
    rows = {trial.rows for trial in together}
    alone = [[trial] for trial in trials if trial not in together]
    return [*([t for t in together if t.rows == count] for count in sorted(rows, key=str)), *alone]


def _shares_base(trial: Trial) -> bool:
    task = trial.recipe["task"]
    head = task["head"] or task["kind"] in ("token-classification", "regression")
    return trial.recipe["base"]["mode"] == "frozen" and not head


def _tried(trials: Sequence[Trial], job: Job, folder: Folder) -> list[Record]:
    from .phases.train import drop_checkpoint

    try:
        found = _work(trials, job, folder)
    except Exception as error:
        if len(trials) > 1:
            return [record for trial in trials for record in _tried([trial], job, folder)]
        if isinstance(error, SoftPromptError) and drop_checkpoint(folder, trials[0]):
            return _tried(trials, job, folder)  # that of a folder that was moved is refused: anew
        found = [failure(_told(error))]
    records = []
    for trial, result in zip(trials, found, strict=True):
        record = {**head(trial), **result, "ended": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())}
        if record.pop("cut", False):
            if job.within is not None:
                folder.write(record | {"cut_within": job.within})
        else:
            folder.write(record)
        records.append(record)
    # after all are written: a kill before leaves the prompts, from which the other records are made
    for record in records:
        if not (record["error"] or {}).get("again"):
            folder.tidy(record)
    return records


def _work(trials: Sequence[Trial], job: Job, folder: Folder) -> list[Record]:
    from .phases import measure, prompt_tables, score, train

    first = trials[0]
    if first.phase in ("search", "final", "curve"):
        prune, seconds = job.prune and first.phase == "search", job.seconds
        if job.until is not None and first.phase == "search":
            seconds = max(0.0, job.until - time.time())
        return train.train(trials, folder, train.How(prune, job.rivals, seconds))
    if first.phase == "measure":
        return [measure.measure(first, folder)]
    if first.phase == "growth":
        return [prompt_tables.grow(first, folder)]
    if first.phase == "newcomer" and "final" in first.about:
        return [prompt_tables.join(first, folder)]
    if "reference" in first.about:
        return [score.score_reference(first, folder)]
    return [score.score_final(first, folder)]


def head(trial: Trial) -> Record:
    """What a record says of its trial."""
    return {
        "id": trial.id,
        "contestant": trial.contestant,
        "phase": trial.phase,
        "settings": trial.settings,
        "seed": trial.seed,
        "rows": trial.rows,
        "about": trial.about,
    }


def failure(error: dict[str, Any]) -> Record:
    """A record of what went wrong."""
    return {"status": "failed", "error": error, "dev": {}, "cost": {}, "history": []}


def _told(error: Exception) -> dict[str, Any]:
    """What, why and how to mend it; of a bug or want of memory: where it was, and that it is tried again."""
    import traceback

    if isinstance(error, SoftPromptError):
        return {"what": error.what, "why": error.why, "fix": error.fix}
    lines = traceback.format_exception(error)
    where = traceback.extract_tb(error.__traceback__)
    place = f"in {Path(where[-1].filename).name}, line {where[-1].lineno}" if where else ""
    what = "memory ran out" if isinstance(error, MemoryError) else lines[-1].strip()
    fix = "run the same command again; it tries this one anew"
    if "memory" in what.lower():
        fix = "a smaller train.batch_size, or compare.workers=1"
    text = "".join(lines).splitlines()[-KEPT_LINES:]
    return {"what": what, "why": place, "fix": fix, "again": True, "traceback": text}
