"""The losses of one learner's step, or of several in one pass through the frozen model.

Rows of all go into one batch, each under its own prompt, over one cache of inputs. That costs less than a
pass each as long as a pass is too small to fill the machine; passes that fill it stay apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import final

import torch
from torch import Tensor

from .cache import ContextCache
from .data.collate import collate
from .methods.base import SoftPrompt
from .methods.side_by_side import SideBySide
from .objectives import Objective, squared_errors, token_losses
from .prepare import Prepared

#: Positions that one pass computes with gradient, beyond which a larger pass is no faster a position
#: (measured: docs/performance.md), and positions of cached inputs that it may hold.
STEP_TOKENS = {"cpu": 512, "cuda": 8192}
INPUT_TOKENS = {"cpu": 8192, "cuda": 131_072}


@final
class Steps:
    """Losses of the rows of `runs`, which share a base model.

    `cache` holds the inputs of all, one run's after another's; None where each step computes them.
    """

    def __init__(self, runs: Sequence[Prepared], cache: ContextCache | None) -> None:
        self._runs, self._cache = runs, cache
        self._starts = [0, *accumulate(len(run.train) for run in runs)]
        self._reads = next((run.method.reads for run in runs if run.method.reads), None)
        self._sizes = [_size(run) for run in runs]
        device = "cuda" if runs[0].lm.device.type == "cuda" else "cpu"
        self._most = STEP_TOKENS[device], INPUT_TOKENS[device]

    def losses(self, parts: Sequence[tuple[int, list[int]]]) -> list[Tensor]:
        """The mean loss of each (run, its rows)."""
        runs = [self._runs[index] for index, _ in parts]
        first, lm = runs[0], runs[0].lm
        examples = [self._runs[index].train[row] for index, rows in parts for row in rows]
        batch = collate(examples, lm.device)
        owner = torch.tensor([k for k, (_, rows) in enumerate(parts) for _ in rows], device=lm.device)
        method: SoftPrompt = first.method
        if len(runs) > 1:
            method = SideBySide([run.method for run in runs])
            offsets = torch.tensor(method.offsets, device=lm.device)
            batch = replace(batch, prompt_ids=batch.prompt_ids + offsets[owner])
        context = None
        if first.plan.mode != "full":
            numbers = [self._starts[index] + row for index, rows in parts for row in rows]
            context = self._cache.context(numbers, lm) if self._cache else lm.prefill(batch)
        found = _objective(first)(lm, method, batch, context)
        if len(runs) == 1:
            return [found.mean()]
        owners = owner[found.rows]
        return [found.values[owners == k].mean() for k in range(len(runs))]

    def groups(self, active: Sequence[int]) -> Iterator[list[int]]:
        """Runs (by number) whose steps go through the model together."""
        for alike in _alike(active, self._kind):
            group, held = [], (0, 0)
            for index in alike:
                total = (held[0] + self._sizes[index][0], held[1] + self._sizes[index][1])
                if group and (total[0] > self._most[0] or total[1] > self._most[1]):
                    yield group
                    group, total = [], self._sizes[index]
                group, held = [*group, index], total
            yield group

    def _kind(self, index: int) -> tuple:
        """Runs alike in this can share a pass; one that does not read its input goes with any that do."""
        run = self._runs[index]
        return run.plan.mode == "full", run.encoder.kind == "regression", run.method.reads or self._reads


def _size(run: Prepared) -> tuple[int, int]:
    """(positions computed with gradient, positions of the inputs) of a step of mean length."""
    rows = min(run.recipe.train.batch_size, len(run.train))
    inputs = sum(len(e.input_ids) for e in run.train)
    return run.plan.step_tokens, round(rows * inputs / max(1, len(run.train)))


def _alike(numbers: Sequence[int], kind: Callable[[int], object]) -> list[list[int]]:
    found: dict[object, list[int]] = {}
    for number in numbers:
        found.setdefault(kind(number), []).append(number)
    return list(found.values())


def _objective(run: Prepared) -> Objective:
    return squared_errors if run.encoder.kind == "regression" else token_losses


def step_loss(run: Prepared, cache: ContextCache | None) -> Callable[[list[int]], Tensor]:
    """The loss of a batch of training rows (by number), computed as the plan says."""
    steps = Steps([run], cache)
    return lambda rows: steps.losses([(0, rows)])[0]
