"""Losses. An objective is a function of model, method and batch; it knows nothing of optimizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.collate import Batch
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.context import Context
from ..methods.base import SoftPrompt
from .cross_entropy import cross_entropy


@dataclass(frozen=True, slots=True)
class Losses:
    """What a batch is wrong by, one number for each thing that was to be predicted."""

    values: Tensor  # [N] float32
    rows: Tensor  # [N] the batch's row that each belongs to

    def mean(self) -> Tensor:
        """Over all of them."""
        return self.values.mean()


Objective = Callable[[LanguageModel, SoftPrompt, Batch, Context | None], Losses]


def token_losses(
    lm: LanguageModel, method: SoftPrompt, batch: Batch, context: Context | None = None
) -> Losses:
    """Cross entropy (nats) of every target of the batch: tokens, or a head's labels and tags."""
    logits = lm.logits(batch, injection_for(lm, method, batch), context)
    real = batch.target_mask  # [tokens, V] of real positions only; all of them are no copy
    flat = logits.flatten(0, 1) if bool(real.all()) else logits[real]
    return Losses(cross_entropy(flat, batch.target_ids[real]), real.nonzero()[:, 0])


def squared_errors(
    lm: LanguageModel, method: SoftPrompt, batch: Batch, context: Context | None = None
) -> Losses:
    """Squared differences between a head's only output and the rows' numbers (`batch.values`)."""
    made = lm.logits(batch, injection_for(lm, method, batch), context)[:, 0, 0]
    assert batch.values is not None
    errors = (made.float() - batch.values).square()
    return Losses(errors, torch.arange(batch.size, device=errors.device))


def next_token(lm: LanguageModel, method: SoftPrompt, batch: Batch, context: Context | None = None) -> Tensor:
    """Mean cross entropy (nats) over the targets of the batch."""
    return token_losses(lm, method, batch, context).mean()
