"""The change on unrelated text that a run's vectors make is measured before and after training.

It is measured where `train.keep` is on and where a text is distilled, and kept in the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .. import methods
from ..artifacts.artifact import Artifact
from ..errors import SoftPromptError
from ..evaluation.leakage import CHUNK, Leakage, leakage, plain_losses
from ..methods.base import SoftPrompt
from .prepare import Prepared
from .run import Run

Start = tuple[list[float] | None, Leakage | None]  # losses of the plain model; the untrained vectors
PROMPTS = 8  # of a table: as many are measured at most
KEY = "leakage"  # in the manifest's `training`


def leakage_of(run: Run) -> dict[str, Any] | None:
    """Return the change in nats a token on unrelated text before and after a run, as plain JSON values.

    `before` is the untrained start, None where it was not measured; both have value, low, high and n. `plain`
    is the loss without vectors. None for a model that predicts no text or has no room for it.
    """
    if (known := recorded(run.artifact)) is not None:
        return known
    if not run.prepared.lm.is_frozen:
        return None
    losses = losses_of(run.prepared)
    after = measured(run.prepared, losses)
    return None if after is None else facts(None, after)


def recorded(artifact: Artifact) -> dict[str, Any] | None:
    """Return what an artifact's manifest says of it; None where it was not measured."""
    return artifact.manifest.get("training", {}).get(KEY)


def start(run: Prepared) -> Start:
    """Measure a run before its first step, where its manifest is to say it."""
    if run.keep is None and run.recipe.task.objective != "distil":
        return None, None
    losses = losses_of(run)
    return losses, measured(run, losses)


def change(run: Prepared, losses: Sequence[float] | None, before: Leakage | None) -> dict[str, Any] | None:
    """Return the values for the manifest of a trained run, from what `start` returned; None without it."""
    after = measured(run, losses)
    return None if after is None else facts(before, after)


def losses_of(run: Prepared) -> list[float] | None:
    """Return the plain model's losses on unrelated text; None where it cannot be measured."""
    size = _chunk(run)
    if run.lm.answers != "next" or size is None:
        return None
    try:
        return plain_losses(run.lm, chunk=size)
    except SoftPromptError:  # a tokenizer that gives the text no ids, or a text of too few chunks
        return None


def measured(run: Prepared, losses: Sequence[float] | None) -> Leakage | None:
    """Measure the run's vectors as they are now, beside the losses of the plain model."""
    size = _chunk(run)
    if losses is None or size is None:
        return None
    method: SoftPrompt = run.method
    numbers = range(min(PROMPTS, method.num_prompts))
    return leakage(run.lm, method, prompts=numbers, base=losses, chunk=size)


def facts(before: Leakage | None, after: Leakage) -> dict[str, Any]:
    """Return the plain values that the manifest holds."""
    return {
        "before": None if before is None else asdict(before.change),
        "after": asdict(after.change),
        "plain": after.plain,
        "chunks": after.chunks,
        "prompts": after.prompts,
    }


def _chunk(run: Prepared) -> int | None:
    """Return the tokens of a chunk that fit beside the vectors; None where there is too little room."""
    recipe, lm = run.recipe, run.lm
    soft, _, _ = methods.soft_tokens(recipe.method.name, recipe.method.options())
    size = min(CHUNK, lm.spec.context - soft)
    return size if size >= CHUNK // 2 else None
