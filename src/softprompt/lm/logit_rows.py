"""Functions of large logits go over a few rows at a time, so that no float32 copy of all is made."""

from __future__ import annotations

import torch
from torch import Tensor

NUMBERS_AT_ONCE = 2**22  # float32 copies of 16 MiB


def rows_at_once(logits: Tensor) -> int:
    """Return how many rows of logits [N, V] are computed at once."""
    return max(1, NUMBERS_AT_ONCE // logits.shape[1])


def exact(part: Tensor) -> Tensor:
    """Return a few rows in float32, or in float64 if they are."""
    return part if part.dtype == torch.float64 else part.float()
