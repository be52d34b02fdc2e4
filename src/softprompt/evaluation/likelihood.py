"""Compute from logits how likely each row's target is."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.collate import Batch


def target_nll(logits: Tensor, batch: Batch) -> Tensor:
    """Return the negative log-probability (nats) of each row's target [B], summed over its tokens."""
    rows = []
    # a few rows at a time: a float32 copy of all [B, T, V] would be the largest tensor of an evaluation
    for part, ids in zip(logits.split(4), batch.target_ids.split(4), strict=True):
        rows.append(part.float().log_softmax(-1).gather(2, ids[:, :, None])[:, :, 0])
    return -(torch.cat(rows) * batch.target_mask).sum(1)
