"""Rows of different lengths take the place of one right-aligned tensor, without being copied into it.

A batch of long cached inputs is hundreds of megabytes of keys and values that attention reads and nothing
changes; putting them side by side at every step costs more than reading them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor


@final
class Ragged:
    """B rows [h, n, x] that take the place of a tensor [B, h, longest n, x] with zeros on the left.

    No gradient reaches them.
    """

    requires_grad = False

    def __init__(self, rows: Sequence[Tensor]) -> None:
        self.rows = tuple(rows)
        heads, _, size = self.rows[0].shape
        self.shape = torch.Size((len(self.rows), heads, max(row.shape[1] for row in self.rows), size))
        self.dtype, self.device = self.rows[0].dtype, self.rows[0].device

    def to(self, *args: Any, **named: Any) -> Ragged:
        """Move or cast the rows, as `Tensor.to` does."""
        return Ragged([row.to(*args, **named) for row in self.rows])

    def __getitem__(self, indices: Tensor) -> Ragged:
        """Take rows by their numbers."""
        return Ragged([self.rows[i] for i in indices.tolist()])

    def repeat_interleave(self, times: int, dim: int = 0) -> Ragged:
        """Repeat each row `times` times in place."""
        assert dim == 0
        return Ragged([row for row in self.rows for _ in range(times)])

    def padded(self) -> Tensor:
        """Return the tensor in whose place it is."""
        out = self.rows[0].new_zeros(self.shape)
        for place, row in zip(out, self.rows, strict=True):
            place[:, self.shape[2] - row.shape[1] :] = row
        return out

    def scores(self, left: Tensor) -> Tensor:
        """Multiply left [B, h, m, x] by the transposed rows: [B, h, m, longest n]."""
        out = left.new_zeros(*left.shape[:3], self.shape[2])
        for place, part, row in zip(out, left, self.rows, strict=True):
            place[..., self.shape[2] - row.shape[1] :] = part @ row.transpose(1, 2)
        return out

    def weighted(self, weights: Tensor) -> Tensor:
        """Multiply weights [B, h, m, longest n] by the rows: [B, h, m, x]."""
        pairs = zip(weights, self.rows, strict=True)
        return torch.stack([part[..., self.shape[2] - row.shape[1] :] @ row for part, row in pairs])


def as_tensor(part: Tensor | Ragged) -> Tensor:
    """Return the part itself, or the tensor in whose place it is."""
    return part.padded() if isinstance(part, Ragged) else part


def rows_of(tensor: Tensor, rows: int) -> Tensor:
    """Repeat rows to the number that the query has: one for all, or each in place (beams)."""
    if tensor.shape[0] == rows:
        return tensor
    if tensor.shape[0] == 1:
        return tensor.expand(rows, *tensor.shape[1:])
    return tensor.repeat_interleave(rows // tensor.shape[0], dim=0)
