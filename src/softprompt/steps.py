"""The gradients of one learner's step, or of several in one pass through the frozen model.

Rows of all go into one batch, each under its own prompt, over one cache of inputs. That costs less than a
pass each as long as a pass is too small to fill the machine; passes that fill it stay apart. A step that more
than fills it is taken in several passes, whose gradients are added: the same step, in less memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import final

import torch
from torch import Tensor

from .cache import ContextCache
from .data.collate import collate
from .data.encode import Example
from .lm.base import LanguageModel
from .methods.base import SoftPrompt
from .methods.side_by_side import SideBySide
from .objectives import Objective, squared_errors, token_losses
from .prepare import Prepared

#: Positions that one pass computes with gradient, beyond which a larger pass is no faster a position
#: (measured: docs/performance.md), and positions of cached inputs that it may hold.
STEP_TOKENS = {"cpu": 512, "cuda": 8192}
INPUT_TOKENS = {"cpu": 8192, "cuda": 131_072}


@dataclass(frozen=True, slots=True)
class Part:
    """What one learner learns: a method, from rows."""

    method: SoftPrompt
    examples: Sequence[Example]
    is_full: bool  # whether something trained stands ahead of the inputs, so that nothing is computed once
    step_tokens: int  # positions that a step computes with gradient
    input_tokens: int  # positions of a step's inputs
    objective: Objective = token_losses

    @staticmethod
    def of(run: Prepared) -> Part:
        """A run's part, as its plan says."""
        rows = min(run.recipe.train.batch_size, len(run.train))
        inputs = sum(len(e.input_ids) for e in run.train)
        objective = squared_errors if run.encoder.kind == "regression" else token_losses
        size = round(rows * inputs / max(1, len(run.train)))
        return Part(run.method, run.train, run.plan.mode == "full", run.plan.step_tokens, size, objective)


@final
class Steps:
    """Losses of the rows of several parts, over one base model.

    `cache` holds the inputs of all, one part's after another's; None where each step computes them.
    """

    def __init__(self, lm: LanguageModel, parts: Sequence[Part], cache: ContextCache | None) -> None:
        self._lm, self._parts, self._cache = lm, parts, cache
        self._starts = [0, *accumulate(len(part.examples) for part in parts)]
        self._reads = next((part.method.reads for part in parts if part.method.reads), None)
        device = "cuda" if lm.device.type == "cuda" else "cpu"
        self._most = STEP_TOKENS[device], INPUT_TOKENS[device]

    def backward(self, chosen: Sequence[tuple[int, list[int]]]) -> list[Tensor]:
        """The mean loss of each (part by number, its rows); their gradients are added to the parameters.

        The gradient of a sum of losses is each part's own, since none has a parameter of another's.
        """
        counts = [self._targets(index, rows) for index, rows in chosen]
        totals = [torch.zeros((), device=self._lm.device) for _ in chosen]
        for one_pass in self._passes(chosen):
            found = self._sums(one_pass)
            losses = [loss / counts[place] for (place, _, _), loss in zip(one_pass, found, strict=True)]
            # a loss that is not finite would make the sum so; it is its own part's end alone
            if finite := [loss for loss in losses if bool(torch.isfinite(loss.detach()))]:
                torch.stack(finite).sum().backward()
            for (place, _, _), loss in zip(one_pass, losses, strict=True):
                totals[place] = totals[place] + loss.detach()
        return totals

    def _targets(self, index: int, rows: list[int]) -> int:
        return sum(len(self._parts[index].examples[row].target_ids) for row in rows)

    def _passes(self, chosen: Sequence[tuple[int, list[int]]]) -> list[list[tuple[int, int, list[int]]]]:
        """(place in `chosen`, part, rows) of each pass: all at once, or one part's rows a few at a time."""
        if len(chosen) > 1:
            return [[(place, index, rows) for place, (index, rows) in enumerate(chosen)]]
        index, rows = chosen[0]
        part = self._parts[index]
        lengths = {row: len(part.examples[row].input_ids) for row in rows}
        tokens = max(part.step_tokens, sum(lengths.values()) if part.is_full else 0)
        number = max(1, min(len(rows), -(-tokens // self._most[0])))
        rows = sorted(rows, key=lengths.__getitem__)
        ends = [len(rows) * k // number for k in range(number + 1)]
        return [[(0, index, rows[start:end])] for start, end in pairwise(ends)]

    def _sums(self, one_pass: Sequence[tuple[int, int, list[int]]]) -> list[Tensor]:
        """The sum of the losses of each part's rows."""
        lm, parts = self._lm, [self._parts[index] for _, index, _ in one_pass]
        first = parts[0]
        examples = [self._parts[index].examples[row] for _, index, rows in one_pass for row in rows]
        batch = collate(examples, lm.device)
        owner = torch.tensor([k for k, (_, _, rows) in enumerate(one_pass) for _ in rows], device=lm.device)
        method: SoftPrompt = first.method
        if len(parts) > 1:
            method = SideBySide([part.method for part in parts])
            offsets = torch.tensor(method.offsets, device=lm.device)
            batch = replace(batch, prompt_ids=batch.prompt_ids + offsets[owner])
        context = None
        if not first.is_full:
            numbers = [self._starts[index] + row for _, index, rows in one_pass for row in rows]
            context = self._cache.context(numbers, lm) if self._cache else lm.prefill(batch)
        found = first.objective(lm, method, batch, context)
        if len(parts) == 1:
            return [found.values.sum()]
        owners = owner[found.rows]
        return [found.values[owners == k].sum() for k in range(len(parts))]

    def groups(self, active: Sequence[int]) -> Iterator[list[int]]:
        """Parts (by number) whose steps go through the model together."""
        alike: dict[object, list[int]] = {}
        for index in active:
            alike.setdefault(self._kind(self._parts[index]), []).append(index)
        for numbers in alike.values():
            yield from self._packed(numbers)

    def _packed(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """As many at once as a pass takes."""
        group: list[int] = []
        tokens = inputs = 0
        for index in numbers:
            part = self._parts[index]
            tokens, inputs = tokens + part.step_tokens, inputs + part.input_tokens
            if group and (tokens > self._most[0] or inputs > self._most[1]):
                yield group
                group, tokens, inputs = [], part.step_tokens, part.input_tokens
            group.append(index)
        yield group

    def _kind(self, part: Part) -> tuple:
        """Parts alike in this can share a pass; one that does not read its input goes with any that do."""
        return part.is_full, part.objective, part.method.reads or self._reads
