"""The gradients of a step are computed for one learner, or for several in one pass through the frozen model.

The rows of several learners go into one batch, each under its own prompt, over one cache of inputs. That
costs less than a pass for each learner as long as a pass is too small to fill the machine; larger passes
stay separate. A step that is too large for one pass is taken in several, whose gradients are added: the same
step, in less memory. Rows of general text (`keep`) have passes of their own: their loss is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import pad

from .._system.world import ALONE, World
from ..cache import InputCache
from ..data.batching import by_tokens
from ..data.collate import collate
from ..data.example import Example
from ..lm import held_weights
from ..lm.base import LanguageModel
from ..methods.base import SoftPrompt
from ..methods.side_by_side import SideBySide
from .hiding import hidden_columns
from .losses import Objective, objective_of, teacher_divergences, token_losses
from .micro_batch import at_once
from .prepare import Prepared
from .together import method_of
from .trained import named_parameters

GENERAL = 0.5  # the largest weight of general text in a step (see `keep`)


@dataclass(frozen=True, slots=True)
class StepPart:
    """One learner's part of a step is given by its method and its rows."""

    method: SoftPrompt
    examples: Sequence[Example]
    is_full: bool  # something trained is ahead of the inputs, so that nothing is computed once
    batch_size: int  # rows a step, about
    soft_tokens: int = 0  # positions of the prompt, a row
    objective: Objective = token_losses
    seed: int = 0
    general: Sequence[Example] = ()  # rows of general text (see `keep`), numbered -1, -2, …
    # examples with another target for the present, by number (see `on_policy`)
    answered: dict[int, Example] = field(default_factory=dict)

    @staticmethod
    def of(run: Prepared) -> StepPart:
        """Make a run's part, as its plan says."""
        rows, is_full = min(run.recipe.train.batch_size, len(run.train)), run.plan.mode == "full"
        # a prompt ahead of the input that all rows share is run once: see `CausalLM.logits`
        shared = is_full and run.method.reads is None and len(run.prompts) == 1
        return StepPart(
            method_of(run),
            run.train,
            is_full,
            rows,
            0 if shared else run.plan.soft_tokens,
            objective_of(run.recipe.task),
            run.recipe.train.seed,
            () if run.keep is None else run.keep.examples,
        )

    def row(self, number: int) -> Example:
        """Return a row by its number: an example, or a row of general text."""
        if self.is_general(number):
            return self.general[-1 - number]
        return self.answered.get(number) or self.examples[number]

    def is_general(self, number: int) -> bool:
        """Return whether a number is that of a row of general text."""
        return number < 0

    def split(self, numbers: Sequence[int]) -> tuple[list[int], list[int]]:
        """Split the numbers of a step's rows into those of examples and those of general text."""
        return [i for i in numbers if not self.is_general(i)], [i for i in numbers if self.is_general(i)]

    def tokens(self, example: Example) -> int:
        """Count the positions that are computed with gradient: of all rows of a batch that a row becomes."""
        inputs = sum(self.soft_tokens + (length if self.is_full else 0) for length, _ in example.lengths)
        return max(1, example.answer_tokens) + inputs

    def step(self) -> tuple[float, float]:
        """Return (positions computed with gradient, positions of the inputs) of a step of mean length."""
        share = self.batch_size / max(1, len(self.examples))
        inputs = sum(len(example.input_ids) for example in self.examples)
        return share * sum(map(self.tokens, self.examples)), share * inputs


def held_for(runs: Sequence[Prepared]) -> AbstractContextManager[bool]:
    """Return a context in which the steps of runs over one base model read held weights, where that pays.

    It yields whether the numbers differ by rounding from those of plain weights.
    """
    steps = max(run.recipe.train.steps for run in runs)
    return held_weights.for_run(runs[0].lm, sum(run.plan.step_tokens for run in runs), steps)


@final
class TrainStep:
    """Computes the losses of the rows of several parts, over one base model.

    `cache` holds the inputs of all parts, in their order; inputs that are not in it are computed each step.
    Of the processes of `world`, each computes its share of the rows. `step_of` gives the steps that a part
    has taken, which decide what is hidden from its rows.
    """

    def __init__(
        self,
        lm: LanguageModel,
        parts: Sequence[StepPart],
        cache: InputCache,
        world: World = ALONE,
        step_of: Callable[[int], int] = lambda part: 0,
    ) -> None:
        self._lm, self._parts, self._cache, self._world = lm, parts, cache, world
        self._step_of = step_of
        self._starts = [0, *accumulate(len(part.examples) for part in parts)]
        self._reads = next((part.method.reads for part in parts if part.method.reads), None)
        self._most = at_once(str(lm.device))

    def backward(self, chosen: Sequence[tuple[int, list[int]]]) -> list[Tensor]:
        """Return the mean loss of each (part by number, its rows); add their gradients to the parameters.

        The gradient of a sum of losses is right for each part, since parts share no parameter. Every target
        of a part counts the same, in whatever pass or process it is computed; those of general text together
        never count more than the others.
        """
        weights = [self._weights(index, rows) for index, rows in chosen]
        totals = [torch.zeros((), device=self._lm.device) for _ in chosen]
        mine = self._passes(self._shares(chosen))
        with held_weights.in_steps(self._lm):
            self._run(mine, weights, totals)
        if self._lm.is_sharded:
            self._keep_step(chosen, len(mine))
        self._reduce(totals, [index for index, _ in chosen])
        return totals

    def _run(
        self,
        passes: Sequence[Sequence[tuple[int, int, list[int]]]],
        weights: Sequence[tuple[float, float]],
        totals: list[Tensor],
    ) -> None:
        """Run passes forward and backward, and add their losses to `totals`."""
        for one_pass in passes:
            sums = self._sums(one_pass)
            losses = [
                loss * weights[place][self._parts[index].is_general(rows[0])]
                for (place, index, rows), loss in zip(one_pass, sums, strict=True)
            ]
            # a loss that is not finite must not spoil the sum: it ends its own part only
            finite = [loss for loss in losses if bool(torch.isfinite(loss.detach()))]
            if self._lm.is_sharded:  # of one part, which it ends; all processes must go through the layers
                finite = losses
            if finite:
                torch.stack(finite).sum().backward()
            for (place, _, _), loss in zip(one_pass, losses, strict=True):
                totals[place] = totals[place] + loss.detach()

    def _shares(
        self, chosen: Sequence[tuple[int, list[int]]], rank: int | None = None
    ) -> list[tuple[int, list[int]]]:
        parts = [(index, self._parts[index].split(rows)) for index, rows in chosen]
        share = self._world.share
        return [(index, share(rows, rank) + share(general, rank)) for index, (rows, general) in parts]

    def _keep_step(self, chosen: Sequence[tuple[int, list[int]]], done: int) -> None:
        """Run the base as often as the process with the most passes does, without an effect on a gradient."""
        ranks = range(self._world.size)
        most = max(len(self._passes(self._shares(chosen, rank))) for rank in ranks)
        index, rows = chosen[0]
        for _ in range(done, most):
            (loss,) = self._sums([(0, index, rows[:1])])
            (0 * loss).backward()

    def _reduce(self, losses: Sequence[Tensor], numbers: Sequence[int]) -> None:
        """Add up the losses and the gradients of the parts over all processes, in place."""
        if self._world.size == 1:
            return
        parameters = [p for part in numbers for p in self._trained(part)]
        # a parameter without a gradient anywhere must stay without one: AdamW then leaves it alone
        has_gradient = self._world.any_of([p.grad is not None for p in parameters])
        parameters = [p for p, is_there in zip(parameters, has_gradient, strict=True) if is_there]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._world.add_up([*losses, *(p.grad for p in parameters if p.grad is not None)])

    def _trained(self, part: int) -> list[Tensor]:
        return list(named_parameters(self._lm, self._parts[part].method).values())

    def _weights(self, index: int, rows: list[int]) -> tuple[float, float]:
        """Return the weight of one loss of a step's rows, and of one of its general text."""
        part = self._parts[index]
        counts = [
            sum(1 if example.rejected_ids else len(example.target_ids) for example in map(part.row, numbers))
            for numbers in part.split(rows)
        ]
        share = min(GENERAL, counts[1] / max(1, sum(counts)))
        return (1 - share) / max(1, counts[0]), share / max(1, counts[1])

    def _passes(self, chosen: Sequence[tuple[int, list[int]]]) -> list[list[tuple[int, int, list[int]]]]:
        """Split into passes of (place in `chosen`, part, rows): all parts at once, or one part in pieces."""
        halves = [(index, self._parts[index].split(rows)) for index, rows in chosen]
        return [
            one_pass
            for half in (0, 1)
            for one_pass in self._alike([(index, parts[half]) for index, parts in halves])
        ]

    def _alike(self, chosen: Sequence[tuple[int, list[int]]]) -> list[list[tuple[int, int, list[int]]]]:
        """Split rows that have the same kind of loss into passes."""
        filled = [(place, index, rows) for place, (index, rows) in enumerate(chosen) if rows]
        if len(filled) != 1:
            return [filled] if filled else []
        place, index, rows = filled[0]
        if getattr(self._parts[index].objective, "whole_step", False):
            return [filled]
        lengths = [self._parts[index].tokens(self._parts[index].row(row)) for row in rows]
        order = sorted(range(len(rows)), key=lengths.__getitem__)
        return [
            [(place, index, [rows[i] for i in batch])] for batch in by_tokens(order, lengths, self._most[0])
        ]

    def _sums(self, one_pass: Sequence[tuple[int, int, list[int]]]) -> list[Tensor]:
        """Return the sum of the losses of each part's rows."""
        lm, parts = self._lm, [self._parts[index] for _, index, _ in one_pass]
        first = parts[0]
        sides = [  # the batch's rows: (place in `one_pass`, number among the rows of all parts, row)
            (k, self._starts[index] + row, side)
            for k, (_, index, rows) in enumerate(one_pass)
            for row in rows
            for side in self._parts[index].row(row).sides()
        ]
        general = first.is_general(one_pass[0][2][0])
        batch = collate([side for _, _, side in sides], lm.device)
        owner = torch.tensor([k for k, _, _ in sides], device=lm.device)
        method: SoftPrompt = first.method
        if len(parts) > 1:
            method = SideBySide([part.method for part in parts])
            offsets = torch.tensor(method.offsets, device=lm.device)
            batch = replace(batch, prompt_ids=batch.prompt_ids + offsets[owner])
        batch = replace(batch, hidden=self._hidden(one_pass, lm.device))
        own_texts = general or any(side.side is not None for _, _, side in sides)  # not the cached inputs
        cache, numbers = InputCache() if own_texts else self._cache, [number for _, number, _ in sides]
        batch, context = cache.fill(batch, numbers, method.reads), None
        if not first.is_full:
            context = cache.context(numbers) or lm.context(batch)
        losses = (teacher_divergences if general else first.objective)(lm, method, batch, context)
        if len(parts) == 1:
            return [losses.values.sum()]
        owners = owner[losses.rows]
        return [losses.values[owners == k].sum() for k in range(len(parts))]

    def _hidden(self, one_pass: Sequence[tuple[int, int, list[int]]], device: torch.device) -> Tensor | None:
        """Return the columns [B, P] that this step hides from the rows of a batch; None for none."""
        if all(self._parts[index].method.hiding is None for _, index, _ in one_pass):
            return None
        rows: list[Tensor] = []
        for _, index, numbers in one_pass:
            part, step = self._parts[index], self._step_of(index)
            for number in numbers:
                example = part.row(number)
                columns = hidden_columns(part.method.hiding, example.demonstration, part.seed, step, number)
                rows += [columns] * len(example.sides())
        width = max(len(columns) for columns in rows)
        return torch.stack([pad(columns, (width - len(columns), 0)) for columns in rows]).to(device)

    def groups(self, active: Sequence[int]) -> Iterator[list[int]]:
        """Group the parts (by number) whose steps go through the model together."""
        alike: dict[object, list[int]] = {}
        for index in active:
            alike.setdefault(self._kind(self._parts[index]), []).append(index)
        for numbers in alike.values():
            yield from self._packed(numbers)

    def _packed(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Yield groups of as many parts as a pass takes."""
        group: list[int] = []
        held = (0.0, 0.0)
        for index in numbers:
            size = self._parts[index].step()
            held = held[0] + size[0], held[1] + size[1]
            if group and (held[0] > self._most[0] or held[1] > self._most[1]):
                yield group
                group, held = [], size
            group.append(index)
        yield group

    def _kind(self, part: StepPart) -> tuple:
        """Return a key: parts with equal keys can share a pass.

        Parts that read no input join any of the others.
        """
        return part.is_full, part.objective, part.method.reads or self._reads
