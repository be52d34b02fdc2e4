"""The columns of a prefix that a training step hides from a row: its own demonstration, and token dropout.

What is drawn is a function of (seed, step, row), so that a resumed run draws the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..methods.base import Hiding


def hidden_columns(
    hiding: Hiding | None, demonstration: int | None, seed: int, step: int, row: int
) -> Tensor:
    """Return [P] bool, True for the columns that training row number `row` does not see in a step.

    `demonstration` is the number of the demonstration that the row is. Dropout leaves the first column alone:
    much of the attention rests on it, whatever it holds.
    """
    if hiding is None:
        return torch.zeros(0, dtype=torch.bool)
    hidden = torch.zeros(hiding.columns, dtype=torch.bool)
    if hiding.dropout:
        generator = torch.Generator().manual_seed(((seed * 1_000_003 + step) * 1_000_003 + row) % 2**63)
        hidden = torch.rand(hiding.columns, generator=generator) < hiding.dropout
        hidden[:1] = False
    if hiding.demonstrations and demonstration is not None:
        begin, end = hiding.demonstrations[demonstration]
        hidden[begin:end] = True
    return hidden
