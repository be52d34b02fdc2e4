"""softprompt's side runs its own training loop over its own steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from softprompt import methods
from softprompt.cache import Cache, InputCache, KeyValues, memory_store
from softprompt.data.example import Example
from softprompt.evaluation.records import DevScore
from softprompt.injection import Injection
from softprompt.lm import held_weights
from softprompt.lm.base import LanguageModel
from softprompt.training.learner import Learner, Optimization
from softprompt.training.loop import fit_together
from softprompt.training.sampler import BatchSampler
from softprompt.training.step import StepPart, TrainStep
from softprompt.training.trained import named_parameters

from . import clock

LENGTH, LR = 16, 1e-2

#: A step runs the whole row, or first the input without gradient, or only the tokens after the cached input.
Mode = Literal["full", "recompute", "cached"]


@dataclass(frozen=True, slots=True)
class Block:
    """Holds the results of a block of steps."""

    seconds: float
    losses: list[float]  # of each step, before its update


def kept(lm: LanguageModel, rows: Sequence[Example]) -> InputCache:
    """Compute the keys and values of all rows, in memory."""
    kv = KeyValues(lm)
    return InputCache(Cache(kv, memory_store.build(kv, rows), rows))


class Ours:
    """Trains a method on rows, every time from the same start."""

    def __init__(
        self,
        lm: LanguageModel,
        method: str,
        rows: Sequence[Example],
        mode: Mode = "full",
        cache: InputCache | None = None,
        **options: Any,
    ) -> None:
        placement = "before" if mode == "full" else "after"
        setting = methods.Setting(lm, examples=tuple(row.input_ids for row in rows[:8]))
        self.lm, self.rows, self.mode, self.cache = lm, rows, mode, cache or InputCache()
        built = methods.build(method, setting, {"length": LENGTH, "placement": placement, **options})
        self.method = built.to(lm.device)
        self._start = {name: tensor.clone() for name, tensor in self.method.state_dict().items()}

    def injection(self) -> Injection:
        """Return the current vectors for one row."""
        return self.method(torch.zeros(1, dtype=torch.long, device=self.lm.device))

    def reset(self) -> None:
        """Set the vectors back to the start."""
        self.method.load_state_dict(self._start)

    def part(self, batch: int) -> StepPart:
        """Return the method with its rows, for steps of `batch` rows."""
        return StepPart(self.method, self.rows, self.mode == "full", batch)

    def backward(self, indices: Sequence[int]) -> Tensor:
        """Compute the loss of the rows with these numbers; its gradient is added to the vectors'."""
        part = self.part(len(indices))
        with as_long_run(self.lm, [part]):
            return TrainStep(self.lm, [part], self.cache).backward([(0, list(indices))])[0]

    def train(self, rows: Sequence[int], steps: int, batch: int) -> Block:
        """Take `steps` steps over the rows with these numbers, from the start."""
        return train([self], [rows], steps, batch)[0]


def train(runs: Sequence[Ours], rows: Sequence[Sequence[int]], steps: int, batch: int) -> list[Block]:
    """Train each on its own rows from its start, all in one run, as `training.tune.tune_many` does.

    All share the base model, the rows and the cache. The blocks' seconds are those of the whole run.
    """
    first, losses = runs[0], [[] for _ in runs]
    learners = []
    for run, chosen in zip(runs, rows, strict=True):
        run.reset()
        lengths = [len(run.rows[i].input_ids) for i in chosen]
        parameters = named_parameters(run.lm, run.method)
        learners.append(Learner(parameters, lengths, lambda: DevScore((0.0,), "", 0.0), plain(steps, batch)))
    parts = [run.part(batch) for run in runs]
    side_by_side = TrainStep(first.lm, parts, _repeated(first, len(runs)))

    def backward(group: Sequence[tuple[int, list[int]]]) -> list[Tensor]:
        batch_losses = side_by_side.backward(
            [(index, [rows[index][i] for i in part]) for index, part in group]
        )
        for (index, _), loss in zip(group, batch_losses, strict=True):
            losses[index].append(loss)
        return batch_losses

    with as_long_run(first.lm, parts):
        started = clock.now()
        fit_together(learners, backward, groups=side_by_side.groups)
        seconds = clock.now() - started
    return [Block(seconds, [loss.item() for loss in each]) for each in losses]


def as_long_run(lm: LanguageModel, parts: Sequence[StepPart]) -> AbstractContextManager[bool]:
    """Let steps read the weights as those of a long run do; the few steps of a block would not."""
    positions = round(sum(part.step()[0] for part in parts))
    return held_weights.for_run(lm, positions, held_weights.STEPS)


def _repeated(run: Ours, times: int) -> InputCache:
    """Repeat the cache of the shared rows, once for each prompt."""
    if run.cache.contexts is None:
        return run.cache
    contexts = run.cache.contexts
    return InputCache(Cache(contexts.kept, contexts.store, list(run.rows) * times))


def plain(steps: int, batch: int) -> Optimization:
    """Use a constant learning rate without warm-up, which every library supports."""
    return Optimization(steps, LR, batch, warmup=0.0, schedule="constant", eval_every=steps)


def batches(rows: Sequence[Example], chosen: Sequence[int], steps: int, batch: int) -> list[list[int]]:
    """Return the batches of `Ours.train`, so that another library can train on the same."""
    order = BatchSampler([len(rows[i].input_ids) for i in chosen], batch, plain(steps, batch).seed)
    return [[chosen[i] for i in order.batch(step)] for step in range(steps)]
