"""Losses. An objective is a function of model, method and batch; it knows nothing of optimizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .cross_entropy import cross_entropy
from .data.collate import Batch
from .injection import Injection
from .lm.base import LanguageModel
from .lm.context import Context
from .lm.features import read
from .methods.base import SoftPrompt


@dataclass(frozen=True, slots=True)
class Losses:
    """What a batch is wrong by, one number for each thing that was to be predicted."""

    values: Tensor  # [N] float32
    rows: Tensor  # [N] the batch's row that each belongs to

    def mean(self) -> Tensor:
        """Over all of them."""
        return self.values.mean()


Objective = Callable[[LanguageModel, SoftPrompt, Batch, Context | None], Losses]


def injection_for(lm: LanguageModel, method: SoftPrompt, batch: Batch) -> Injection:
    """What the method gives this batch, having read the input where it does.

    Where all rows ask for the same prompt, and it reads nothing, one row of it for all.
    """
    if method.reads is not None:
        return method(batch.prompt_ids, read(lm, batch, method.reads))
    ids = batch.prompt_ids
    return method(ids[:1] if bool((ids == ids[0]).all()) else ids)


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


def target_nll(logits: Tensor, batch: Batch) -> Tensor:
    """Negative log-probability (nats) of each row's target [B], summed over its tokens."""
    rows = []
    # a few rows at a time: float32 copies of all [B, T, V] are the largest thing that an evaluation holds
    for part, ids in zip(logits.split(4), batch.target_ids.split(4), strict=True):
        rows.append(part.float().log_softmax(-1).gather(2, ids[:, :, None])[:, :, 0])
    return -(torch.cat(rows) * batch.target_mask).sum(1)
