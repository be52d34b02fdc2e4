"""Which rows are in which step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch


@final
class Order:
    """Which rows are in which batch. Batches are of like lengths; their order is shuffled."""

    POOL = 16  # batches' worth of rows sorted together: enough to save padding, little enough to stay random

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.size, self.seed = lengths, batch_size, seed
        self.per_epoch = max(1, math.ceil(len(lengths) / batch_size))
        self._epoch, self._batches = -1, []

    def batch(self, step: int) -> list[int]:
        """Row numbers of a step, the same whenever it is asked for."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._make(epoch)
        return self._batches[index]

    def _make(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        rows = torch.randperm(len(self.lengths), generator=generator).tolist()
        pool = self.POOL * self.size
        batches = []
        for start in range(0, len(rows), pool):
            part = sorted(rows[start : start + pool], key=self.lengths.__getitem__)
            batches += [part[i : i + self.size] for i in range(0, len(part), self.size)]
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[i] for i in shuffled]
