"""This library's side: its own loop over its own steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from softprompt import methods
from softprompt.cache import ContextCache
from softprompt.data.collate import collate
from softprompt.data.encode import Example
from softprompt.injection import Injection
from softprompt.lm.base import LanguageModel
from softprompt.objectives import next_token
from softprompt.order import Order
from softprompt.train import DevScore, Optimization, fit

LENGTH, LR = 16, 1e-2

#: Every step runs the whole row; the input without gradient first; or only what follows the cached input.
Mode = Literal["full", "recompute", "cached"]


@dataclass(frozen=True, slots=True)
class Block:
    """What a block of steps left."""

    seconds: float
    losses: list[float]  # of each step, before its update


class Ours:
    """A method on rows, trained again and again from the same start."""

    def __init__(
        self,
        lm: LanguageModel,
        method: str,
        rows: Sequence[Example],
        mode: Mode = "full",
        cache: ContextCache | None = None,
        **options: Any,
    ) -> None:
        placement = "before" if mode == "full" else "after"
        setting = methods.Setting(lm, examples=tuple(row.input_ids for row in rows[:8]))
        self.lm, self.rows, self.mode, self.cache = lm, rows, mode, cache
        self.method = methods.build(method, setting, {"length": LENGTH, "placement": placement, **options})
        self._start = {name: tensor.clone() for name, tensor in self.method.state_dict().items()}

    def injection(self) -> Injection:
        """The vectors as they are now, for one row."""
        return self.method(torch.zeros(1, dtype=torch.long))

    def reset(self) -> None:
        """Back to the start."""
        self.method.load_state_dict(self._start)

    def loss(self, indices: Sequence[int]) -> Tensor:
        """Of a batch of rows by number."""
        batch = collate([self.rows[i] for i in indices], self.lm.device)
        if self.mode == "full":
            return next_token(self.lm, self.method, batch)
        context = self.cache.context(indices, self.lm) if self.cache else self.lm.prefill(batch)
        return next_token(self.lm, self.method, batch, context)

    def train(self, rows: Sequence[int], steps: int, batch: int) -> Block:
        """`steps` steps over the rows with these numbers, from the start."""
        self.reset()
        losses: list[Tensor] = []

        def loss_of(chosen: list[int]) -> Tensor:
            loss = self.loss([rows[i] for i in chosen])
            losses.append(loss.detach())
            return loss

        lengths = [len(self.rows[i].input_ids) for i in rows]
        started = time.perf_counter()
        fit(self.lm, self.method, loss_of, lengths, lambda: DevScore((0.0,), "", 0.0), plain(steps, batch))
        return Block(time.perf_counter() - started, [loss.item() for loss in losses])


def plain(steps: int, batch: int) -> Optimization:
    """A constant learning rate without warm-up: what any library can do alike."""
    return Optimization(steps, LR, batch, warmup=0.0, schedule="constant", eval_every=steps)


def batches(rows: Sequence[Example], chosen: Sequence[int], steps: int, batch: int) -> list[list[int]]:
    """The very batches of `Ours.train`, for whoever is to train on the same."""
    order = Order([len(rows[i].input_ids) for i in chosen], batch, plain(steps, batch).seed)
    return [[chosen[i] for i in order.batch(step)] for step in range(steps)]
