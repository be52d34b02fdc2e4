"""Training trials: of one contestant, side by side where the base stays as it is.

A final trial runs alone, so that its seconds and its memory are those that a user would see; of the others
nothing but the dev score is wanted.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._system.memory import peak_memory, reset_peak
from ..._system.run_lock import held
from ...config.load import recipe_from_dict
from ...errors import SoftPromptError
from ...evaluation.metrics import METRICS
from ...training.loop import Event
from ...training.output_folder import make_room, of_this_run
from ...training.prepare import Prepared, prepare
from ...training.sampler import BatchSampler, row_lengths
from ...training.step import StepPart
from ...training.sweep import prepare_settings
from ...training.tune import Hooks, Run, optimization, tune_many
from ..measures.cost import added_tokens, training_flops
from ..model_pool import forget, frozen_base
from ..pruning import Pruner, curve_of
from ..store import Folder, Record
from ..trials import Trial

COUNTED = 4  # batches whose operations are counted


@dataclass(frozen=True)
class How:
    """What a job of training trials is told beyond its trials."""

    prune: bool = False
    rivals: tuple[str, ...] = ()  # trials of the same search that ended before
    seconds: float | None = None  # after which training is cut off


def train(trials: Sequence[Trial], folder: Folder, how: How) -> list[Record]:
    """Train them all, side by side; their records. Raises what training raises."""
    started = time.perf_counter()
    recipes = [recipe_from_dict(trial.recipe) for trial in trials]
    lm = frozen_base(recipes[0])
    if lm is None:
        forget()  # a base of its own is loaded: two would count as its memory
    gc.collect()
    reset_peak()
    prepared = prepare_settings(recipes, lm=lm) if len(recipes) > 1 else [prepare(recipes[0], lm=lm)]
    watch = _Watch(prepared, _rivals(folder, how) if how.prune else None, how.seconds)
    hooks = Hooks(watch.stage, watch.cached, watch.event, is_pruned=watch.is_pruned)
    kept = any(trial.phase == "final" for trial in trials)  # of the others no artifact stays
    # a worker of a comparison that was killed may take a moment to end
    with held([folder.artifact(trial.id) for trial in trials], wait=True):
        if not kept:
            for run in prepared:
                _drop_unfit(run, how)
        # a final is trained whole again, so that its memory is measured
        runs = tune_many(prepared, hooks=hooks, overwrite=kept, text_rows=0, plain=kept)
    seconds, peak = (time.perf_counter() - started) / len(runs), peak_memory()
    records = []
    for trial, run in zip(trials, runs, strict=True):
        record = _record(trial, run, run.outcome.seconds if run.was_finished else seconds)
        record["cost"] |= _counted(trial, run)
        record["cut"] = watch.is_over and record["status"] == "pruned"
        if len(runs) == 1 and not run.was_finished:
            record["cost"] |= {"peak_memory_bytes": peak, "cache_seconds": watch.cache_seconds}
        records.append(record)
    return records


def _drop_unfit(run: Prepared, how: How) -> None:
    """Remove a prompt that is not its trial's result: another trial's, a damaged one, one that time cut off.

    The others of a call that was killed before it wrote all records are taken as they are: trained again with
    fewer beside them, they would be rounded otherwise.
    """
    folder = Path(run.recipe.output)
    try:
        found = of_this_run(folder, run.identity())
        by_rivals = how.prune and how.seconds is None
        is_fit = found is None or by_rivals or found.manifest["training"]["stopped"] != "pruned"
    except SoftPromptError:
        is_fit = False
    if not is_fit:
        make_room(folder, restart=False, overwrite=True)


class _Watch:
    """Follows a run: how long its cache took, and who lies behind."""

    def __init__(
        self,
        prepared: Sequence[Prepared],
        rivals: Sequence[Mapping[str, Any]] | None,
        seconds: float | None = None,
    ) -> None:
        how = optimization(prepared[0].recipe)
        self.cache_seconds = 0.0
        self._began = time.perf_counter()
        self._pruner: Pruner | None = None
        self._steps, self._records = how.steps, rivals
        self._until = None if seconds is None else self._began + seconds
        self.is_over = False

    def stage(self, text: str) -> None:
        self._began = time.perf_counter()

    def cached(self, done: int, total: int) -> None:
        if done == total:
            self.cache_seconds += time.perf_counter() - self._began
            self._began = time.perf_counter()

    def event(self, event: Event) -> None:
        if self._records is None or event.dev is None:
            return
        better = METRICS[event.dev.name].higher_is_better
        if self._pruner is None:
            curves = [curve_of(record, event.dev.name, better) for record in self._records]
            self._pruner = Pruner(self._steps, curves)
        self._pruner.note(event.learner, event.step, event.dev.shown if better else -event.dev.shown)

    def is_pruned(self, learner: int) -> bool:
        self.is_over = self._until is not None and time.perf_counter() > self._until
        return self.is_over or (self._pruner is not None and self._pruner.is_behind(learner))


def _rivals(folder: Folder, how: How) -> list[Record]:
    return [record for id in how.rivals if (record := folder.read(id)) and record["status"] == "done"]


def _record(trial: Trial, run: Run, seconds: float) -> Record:
    outcome = run.outcome
    status, error = {"pruned": "pruned", "nan": "failed"}.get(outcome.stopped, "done"), None
    if status == "failed":
        lr = optimization(run.prepared.recipe).lr
        error = {
            "what": f"the loss was not finite at step {outcome.step + 1}",
            "why": "the step before was too long",
            "fix": f"lower learning rates, as {lr / 3:.1e}",
        }
    return {
        "status": status,
        "error": error,
        "dev": {name: score.value for name, score in run.dev.metrics.items()},
        "dev_key": list(run.key),
        "best_step": outcome.best_step,
        "steps": outcome.step,
        "history": outcome.history,
        "seconds": seconds,
        "plan": run.prepared.plan.mode,
        "cost": {
            "train_seconds": outcome.seconds,
            "trained_parameters": run.prepared.trained_parameters,
            "artifact_bytes": run.artifact.bytes,
            "cache_bytes": run.prepared.plan.cache_bytes if run.prepared.plan.is_cached else 0,
        },
    }


def _counted(trial: Trial, run: Run) -> dict[str, Any]:
    """What is counted of a final run: operations and added tokens."""
    if trial.phase != "final":
        return {}
    prepared, how = run.prepared, optimization(run.prepared.recipe)
    # the same rows for every contestant and seed, since operations go by the rows' lengths
    order = BatchSampler(row_lengths(prepared.train, how.batch_tokens), how.batch_size, 0, how.batch_tokens)
    flops = training_flops(
        prepared.lm,
        prepared.method,
        prepared.train,
        [order.batch(step) for step in range(COUNTED)],
        prepared.plan.mode,
        StepPart.of(prepared).objective,
    )
    added = added_tokens(prepared.lm, prepared.method, prepared.dev[:32])
    return {
        "flops": flops.of(run.outcome.step),
        "flops_once": flops.once,
        "added_tokens": added.soft_tokens,
        "prefix_columns": added.prefix_columns,
    }


def drop_checkpoint(folder: Folder, trial: Trial) -> bool:
    """Forget a training that was broken off; False where there is none."""
    place = folder.artifact(trial.id) / "checkpoint"
    found = place.exists()
    shutil.rmtree(place, ignore_errors=True)
    return found
