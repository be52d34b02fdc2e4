"""Batches hold rows of like lengths, in shuffled order, as a function of (seed, epoch) alone."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import torch

from ..data.batching import by_tokens
from ..data.example import Example

POOL = 16  # batches' worth of rows sorted together: enough to save padding, little enough to stay random


class BatchSampler:
    """Batches of `batch_size` rows, or, with `batch_tokens`, of as many as fit in so many padded tokens.

    Every row occurs once an epoch. A row that is longer than `batch_tokens` is a batch of its own.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, batch_tokens: int | None = None
    ) -> None:
        self.lengths, self.size, self.seed, self.tokens = lengths, batch_size, seed, batch_tokens
        if batch_tokens is not None:  # rows of mean length in a batch
            self.size = max(1, batch_tokens * len(lengths) // max(1, sum(lengths)))
        self._ends: list[int] = []  # the step after each epoch: by tokens, epochs differ in their batches
        self._epoch, self._batches = -1, []

    @property
    def per_epoch(self) -> int:
        """Return the number of batches in the first epoch; without `batch_tokens`, in every epoch."""
        return len(self.epoch(0))

    def batch(self, step: int) -> list[int]:
        """Return the row numbers of a step."""
        while not self._ends or step >= self._ends[-1]:
            self._ends.append((self._ends or [0])[-1] + len(self.epoch(len(self._ends))))
        epoch = bisect.bisect_right(self._ends, step)
        return self.epoch(epoch)[step - (self._ends[epoch - 1] if epoch else 0)]

    def needed(self, steps: int) -> list[int]:
        """Return the rows that so many steps read, each once, in the order in which they are read."""
        rows: dict[int, None] = {}
        for step in range(steps):
            rows |= dict.fromkeys(self.batch(step))
            if len(rows) == len(self.lengths):
                break
        return list(rows)

    def epoch(self, number: int) -> list[list[int]]:
        """Return all batches of an epoch, in order."""
        if number != self._epoch:
            self._epoch, self._batches = number, self._make(number)
        return self._batches

    def _make(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        rows = torch.randperm(len(self.lengths), generator=generator).tolist()
        pool = POOL * self.size
        batches: list[list[int]] = []
        for start in range(0, len(rows), pool):
            part = sorted(rows[start : start + pool], key=self.lengths.__getitem__)
            if self.tokens is not None:
                batches += by_tokens(part, self.lengths, self.tokens)
            else:
                batches += [part[i : i + self.size] for i in range(0, len(part), self.size)]
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[i] for i in shuffled]


def row_lengths(examples: Sequence[Example], batch_tokens: int | None = None) -> list[int]:
    """Return the rows' lengths in tokens: of the input, and with `batch_tokens` of all that a step reads."""
    if batch_tokens is None:
        return [len(e.input_ids) for e in examples]
    return [sum(length for length, _ in e.lengths) + e.answer_tokens for e in examples]
