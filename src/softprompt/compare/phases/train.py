"""Trains the trials of one candidate, side by side where the base stays as it is.

A final trial runs alone, so that its seconds and its memory are those that a user would see; the others are
run for their dev scores alone.
"""

from __future__ import annotations

import gc
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..._system.memory import peak_memory, reset_peak
from ..._system.run_lock import held
from ...config.load import recipe_from_dict
from ...errors import SoftPromptError
from ...evaluation.metrics import METRICS
from ...evaluation.records import Evaluation
from ...training.loop import Event
from ...training.output_folder import make_room, of_this_run
from ...training.prepare import Prepared, prepare
from ...training.references import without_references
from ...training.sampler import BatchSampler, row_lengths
from ...training.step import StepPart
from ...training.sweep import prepare_settings
from ...training.tune import Hooks, Run, optimization, tune_many
from ..measures.cost import added_tokens, training_flops
from ..records.phase import PHASES
from ..records.store import Folder
from ..records.types import Cost, DevRow, Record, Result, TrialError
from ..trials import Trial
from .along import last, with_seconds
from .model_pool import forget, frozen_base
from .pruning import Pruner, curve_of

COUNTED = 4  # batches whose operations are counted


@dataclass(frozen=True)
class Options:
    """The options that a training job has: pruning against other trials, and a limit of time."""

    prune: bool = False
    rivals: tuple[str, ...] = ()  # trials of the same search that ended before
    seconds: float | None = None  # after which training is stopped


def train(trials: Sequence[Trial], folder: Folder, options: Options) -> list[Result]:
    """Train all of them side by side, and return their results. Raises what training raises."""
    started = time.perf_counter()
    recipes = [recipe_from_dict(trial.recipe) for trial in trials]
    lm = frozen_base(recipes[0])
    if lm is None:
        forget()  # a base of its own is loaded: two would count as its memory
    gc.collect()
    reset_peak()
    prepared = prepare_settings(recipes, lm=lm) if len(recipes) > 1 else [prepare(recipes[0], lm=lm)]
    rivals = None
    if options.prune:
        earlier = map(folder.read, options.rivals)
        rivals = [record for record in earlier if record is not None and record["status"] == "done"]
    watch = _Watch(prepared, rivals, options.seconds)
    hooks = Hooks(watch.stage, watch.cached, watch.event, is_pruned=watch.is_pruned)
    is_final = PHASES[trials[0].phase].keeps_prompt
    # a worker of a comparison that was killed may take a moment to end
    with held([folder.artifact(trial.id) for trial in trials], wait=True):
        if not is_final:
            for run in prepared:
                _drop_unfit(run, options)
        # a final trains again from its start, so that its memory is measured
        runs = tune_many(prepared, hooks=hooks, overwrite=is_final, text_rows=0, plain=is_final)
    seconds, peak = (time.perf_counter() - started) / len(runs), peak_memory()
    results = []
    for trial, run in zip(trials, runs, strict=True):
        result = _result(run, run.outcome.seconds if run.was_finished else seconds)
        result["history"] = with_seconds(run.outcome.history, folder.journal(trial.id))
        result["step_seconds"] = last(result["history"])
        if is_final:
            result["cost"] |= _counted(run)
        if PHASES[trials[0].phase].keeps_rows and run.dev.records:
            result["dev_rows"] = _dev_rows(run.dev)
        result["cut"] = watch.is_over and result["status"] == "pruned"
        if len(runs) == 1 and not run.was_finished:
            result["cost"] |= {"peak_memory_bytes": peak, "cache_seconds": watch.cache_seconds}
        results.append(result)
    return results


def _drop_unfit(run: Prepared, options: Options) -> None:
    """Remove a prompt that is not its trial's result: another trial's, a damaged one, one that time stopped.

    Other prompts, left by a call that was killed before it wrote all records, are taken as they are: trained
    again with fewer trials side by side, their rounding would differ.
    """
    folder = Path(run.recipe.output)
    try:
        artifact = of_this_run(folder, run.identity())
        by_rivals = options.prune and options.seconds is None
        is_fit = artifact is None or by_rivals or artifact.manifest["training"]["stopped"] != "pruned"
    except SoftPromptError:
        is_fit = False
    if not is_fit:
        make_room(folder, restart=False, overwrite=True)


class _Watch:
    """Follows a run: measures how long its cache took, and says which trials are behind."""

    def __init__(
        self,
        prepared: Sequence[Prepared],
        rivals: Sequence[Record] | None,
        seconds: float | None = None,
    ) -> None:
        self.cache_seconds = 0.0
        self._began = time.perf_counter()
        self._pruner: Pruner | None = None
        self._steps, self._rivals = optimization(prepared[0].recipe).steps, rivals
        self._until = None if seconds is None else self._began + seconds
        self.is_over = False

    def stage(self, text: str) -> None:
        self._began = time.perf_counter()

    def cached(self, done: int, total: int) -> None:
        if done == total:
            self.cache_seconds += time.perf_counter() - self._began
            self._began = time.perf_counter()

    def event(self, event: Event) -> None:
        if self._rivals is None or event.dev is None:
            return
        better = METRICS[event.dev.name].higher_is_better
        if self._pruner is None:
            curves = [curve_of(record, event.dev.name, better) for record in self._rivals]
            self._pruner = Pruner(self._steps, curves)
        self._pruner.note(event.learner, event.step, event.dev.shown if better else -event.dev.shown)

    def is_pruned(self, learner: int) -> bool:
        self.is_over = self._until is not None and time.perf_counter() > self._until
        return self.is_over or (self._pruner is not None and self._pruner.is_behind(learner))


def _result(run: Run, seconds: float) -> Result:
    outcome = run.outcome
    status = {"pruned": "pruned", "nan": "failed"}.get(outcome.stopped, "done")
    error: TrialError | None = None
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


def _dev_rows(dev: Evaluation) -> list[DevRow]:
    """Return the rows of an evaluation as a record holds them."""
    rows: list[DevRow] = []
    for record in dev.records:
        row: DevRow = {
            "references": list(record.references),
            "prediction": record.prediction,
            "nll": record.nll if math.isfinite(record.nll) else None,
            "tokens": record.tokens,
        }
        if record.rewards is not None:
            row["rewards"] = list(record.rewards)
        if record.ranks is not None:
            row["ranks"], row["query_rows"] = list(record.ranks), record.query_rows
        rows.append(row)
    return rows


def _counted(run: Run) -> Cost:
    """Count the operations and the added tokens of a run."""
    prepared, config = without_references(run.prepared), optimization(run.prepared.recipe)
    # the same rows for every candidate and seed, since operations depend on the rows' lengths
    lengths = row_lengths(prepared.train, config.batch_tokens)
    order = BatchSampler(lengths, config.batch_size, 0, config.batch_tokens)
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
    """Remove the checkpoint of a training that was interrupted; return False if there is none."""
    checkpoint = folder.artifact(trial.id) / "checkpoint"
    was_there = checkpoint.exists()
    shutil.rmtree(checkpoint, ignore_errors=True)
    return was_there
