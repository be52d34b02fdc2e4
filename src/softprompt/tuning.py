"""Tune: train what `prepare` made, evaluate it beside the plain model, save it.

Display is the caller's: progress comes out as events. Nothing here prints.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from . import artifact as artifacts
from . import methods
from .artifact import Artifact
from .cache import InputCache
from .checkpoint import saved_step
from .data.collate import collate
from .data.encode import Encoder
from .errors import SoftPromptError
from .evaluate import Evaluation, Evaluator
from .lm import adapt
from .lm.base import LanguageModel
from .memory import peak_memory
from .methods.base import Setting, SoftPrompt
from .metrics import METRICS
from .objectives import next_token, squared_error
from .order import row_lengths
from .prepare import Prepared, base_options, open_caches
from .provenance import provenance
from .recipe import Recipe
from .train import DevScore, Event, Optimization, Outcome, fit

TEXT_ROWS = 50  # dev rows of a generation task that are answered in text


@dataclass(frozen=True)
class Run:
    """What `tune` gives back."""

    prepared: Prepared
    outcome: Outcome
    artifact: Artifact
    dev: Evaluation
    plain: Evaluation  # the plain model on the same dev rows


@dataclass
class Hooks:
    """How a caller follows a run. Every hook may be left out."""

    on_stage: Callable[[str], None] = lambda text: None
    on_cache: Callable[[int, int], None] = lambda done, total: None
    on_event: Callable[[Event], None] = lambda event: None
    should_stop: Callable[[], bool] = lambda: False


class Interrupted(Exception):
    """Training was stopped from outside; its state is saved."""

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(f"stopped at step {step}")
        self.step, self.folder = step, folder


def tune(
    prepared: Prepared,
    *,
    hooks: Hooks | None = None,
    restart: bool = False,
    overwrite: bool = False,
    text_rows: int = TEXT_ROWS,
) -> Run:
    """Train, keep the best on the dev rows, evaluate beside the plain model, save.

    Goes on from the output folder's checkpoint where there is one. Of a generation task's dev rows at
    most `text_rows` are answered in text (all count in perplexity). Raises Interrupted (state saved)
    and SoftPromptError (a loss that is not finite: the last good state is saved first).
    """
    hooks = hooks or Hooks()
    recipe, lm, method = prepared.recipe, prepared.lm, prepared.method
    folder = Path(recipe.output)
    _make_room(folder, restart, overwrite)
    started = time.perf_counter()
    hooks.on_stage("plain model on the dev rows")
    (cache, dev_cache), prepared = open_caches(
        prepared, [prepared.train, prepared.dev], progress=hooks.on_cache, say=hooks.on_stage
    )
    evaluator = evaluator_of(recipe, lm, prepared.encoder)
    # now and not after training: a base that is trained too is still the plain model
    plain = evaluator.run(_plain(lm, prepared.prompts), prepared.dev, cache=dev_cache, text_rows=text_rows)
    done = saved_step(folder / "checkpoint")
    hooks.on_stage(f"training, going on from step {done}" if done else "training")
    outcome = fit(
        lm,
        method,
        step_loss(prepared, cache),
        row_lengths(prepared.train, recipe.train.batch_tokens),
        lambda: dev_key(evaluator.run(method, prepared.dev, cache=dev_cache, text_rows=0)),
        optimization(recipe),
        folder=folder / "checkpoint",
        identity=prepared.identity(),
        on_event=hooks.on_event,
        should_stop=hooks.should_stop,
    )
    if outcome.stopped == "interrupted":
        raise Interrupted(outcome.step, folder)
    hooks.on_stage("evaluating the best on the dev rows")
    dev = evaluator.run(method, prepared.dev, cache=dev_cache, text_rows=text_rows)
    saved = artifacts.save(
        folder, method, lm, manifest(prepared, outcome, dev, plain, time.perf_counter() - started)
    )
    if outcome.stopped == "nan":
        lr = optimization(recipe).lr
        raise SoftPromptError(
            f"the loss was not finite at step {outcome.step + 1} (lr={lr:g})",
            why=f"the step before was too long; the best state (step {outcome.best_step}) is in {folder}",
            fix=f"train.lr={lr / 3:.1e} --overwrite",
        )
    return Run(prepared, outcome, saved, dev, plain)


def step_loss(prepared: Prepared, cache: InputCache | None = None) -> Callable[[list[int]], torch.Tensor]:
    """The loss of a batch of training rows (by number), computed as the plan says."""
    lm, method, cache = prepared.lm, prepared.method, cache or InputCache()
    objective = squared_error if prepared.encoder.kind == "regression" else next_token

    def loss(rows: list[int]) -> torch.Tensor:
        batch = collate([prepared.train[i] for i in rows], lm.device)
        batch = cache.fill(batch, rows, method.reads)
        if prepared.plan.mode == "full":
            return objective(lm, method, batch, None)
        return objective(lm, method, batch, cache.context(rows) or lm.prefill(batch))

    return loss


def dev_key(evaluation: Evaluation) -> DevScore:
    """The first metric decides; the dev rows' mean log-loss breaks ties (accuracy moves in steps)."""
    name, score = next(iter(evaluation.metrics.items()))
    records = evaluation.records
    log_loss = sum(r.nll for r in records) / max(1, sum(r.tokens for r in records))
    value = score.value if METRICS[name].higher_is_better else -score.value
    return DevScore((value, -log_loss), name, score.value)


def optimization(recipe: Recipe) -> Optimization:
    """The recipe's training numbers, with the method's and the base's own learning rates filled in."""
    train = recipe.train
    lr = train.lr or methods.find(recipe.method.name).lr
    base_lr = recipe.base.lr or adapt.LEARNING_RATE.get(recipe.base.mode, 0.0)
    return Optimization(
        train.steps,
        lr,
        train.batch_size,
        base_lr,
        train.weight_decay,
        train.warmup,
        train.schedule,
        train.clip,
        train.eval_every,
        train.patience,
        train.seed,
        train.batch_tokens,
    )


def evaluator_of(recipe: Recipe, lm: LanguageModel, encoder: Encoder) -> Evaluator:
    """How they are scored."""
    return Evaluator(lm, encoder, tuple(recipe.task.metrics or ()), recipe.task.max_new_tokens)


def manifest(
    prepared: Prepared, outcome: Outcome, dev: Evaluation, plain: Evaluation, seconds: float
) -> dict[str, Any]:
    """What `softprompt.json` says, but for the files' hashes."""
    recipe, lm = prepared.recipe, prepared.lm
    defaults = {name: p.default for name, p in methods.find(recipe.method.name).options().items()}
    return {
        "method": recipe.method.name,
        "options": defaults | recipe.method.options(),
        "prompts": list(prepared.prompts),
        "labels": list(prepared.encoder.labels) if prepared.encoder.labels else None,
        "base": {
            "name": lm.name,
            "mode": recipe.base.mode,
            "options": base_options(recipe),
            "fingerprint": prepared.base,
            "dtype": str(lm.dtype).removeprefix("torch."),
        },
        "recipe": recipe.to_dict(),
        "data": {
            "fingerprint": prepared.data_fingerprint,
            "rows": len(prepared.train),
            "dev_rows": len(prepared.dev),
        },
        "trained_parameters": prepared.trained_parameters,
        "carried": None if prepared.carried is None else asdict(prepared.carried),
        "plan": prepared.plan.mode,
        "training": {
            "stopped": outcome.stopped,
            "steps": outcome.step,
            "best_step": outcome.best_step,
            "seconds": round(outcome.seconds, 1),
            "seconds_with_caches": round(seconds, 1),
            "peak_memory_bytes": peak_memory(),
            "history": outcome.history,
        },
        "dev": dev.to_json(),
        "plain": plain.to_json(),
        **provenance(),
    }


def _plain(lm: LanguageModel, prompts: tuple[str, ...]) -> SoftPrompt:
    return methods.build("none", Setting(lm, prompts))


def _make_room(folder: Path, restart: bool, overwrite: bool) -> None:
    if (folder / artifacts.MANIFEST).exists():
        if not overwrite:
            raise SoftPromptError(
                f"{folder} already holds a tuned prompt",
                why="it would be lost",
                fix="choose another output=FOLDER, or add --overwrite",
            )
        (folder / artifacts.MANIFEST).unlink()
        restart = True
    checkpoint = folder / "checkpoint" / "checkpoint.safetensors"
    if restart and checkpoint.exists():
        checkpoint.unlink()
