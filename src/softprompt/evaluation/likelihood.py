"""Compute from logits how likely each row's target is."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.collate import Batch
from ..lm.divergence import divergence


def target_nll(logits: Tensor, batch: Batch) -> Tensor:
    """Return the negative log-probability (nats) of each row's target [B], summed over its tokens."""
    rows = []
    # a few rows at a time: a float32 copy of all [B, T, V] would be the largest tensor of an evaluation
    for part, ids in zip(logits.split(4), batch.target_ids.split(4), strict=True):
        rows.append(part.float().log_softmax(-1).gather(2, ids[:, :, None])[:, :, 0])
    return -(torch.cat(rows) * batch.target_mask).sum(1)


def teacher_divergence(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compare each row's distributions with the teacher's, over the tokens of its target.

    Return the divergence [B] in nats, summed, and the number of tokens [B] at which both have the same
    likeliest token.
    """
    assert batch.teacher_ids is not None and batch.teacher_logprobs is not None
    real = batch.target_mask
    ids, known = batch.teacher_ids[real], batch.teacher_logprobs[real]
    flat, rows = logits[real], real.nonzero()[:, 0]
    sums = torch.zeros(batch.size, device=logits.device)
    same = flat.argmax(1) == ids[:, 0]
    return sums.index_add(0, rows, divergence(flat, ids, known)), sums.index_add(0, rows, same.float())
