"""The mean training loss of a start, by which the best of several is kept (`methods.draws`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch

from ..config.schema import Recipe
from ..data.collate import collate
from ..data.example import Example
from ..errors import SoftPromptError
from ..injection import Injection
from ..lm.base import LanguageModel
from ..methods.materialised import Materialised
from .losses import objective_of

ROWS, AT_ONCE = 32, 8  # training rows of a prompt that its starts are compared on; rows of a pass


@final
class StartLoss:
    """Computes an injection's mean loss on the first training rows of a prompt, by the task's objective."""

    def __init__(self, recipe: Recipe, lm: LanguageModel, train: Sequence[Example]) -> None:
        self._task, self._lm, self._train = recipe.task, lm, train

    @torch.no_grad()
    def __call__(self, prompt: int, injection: Injection) -> float:
        """Return the loss (nats a token, label or number), smaller for a better start.

        Raises SoftPromptError for preferences, whose loss is the same for all starts near the plain model.
        """
        if self._task.kind == "preference":
            raise SoftPromptError(
                "method.draws cannot be combined with task.kind=preference",
                why="the loss of pairs compares a prompt with the plain model, near which all starts are",
                fix="leave method.draws out",
            )
        rows = [example for example in self._train if example.prompt == prompt][:ROWS] or self._train[:ROWS]
        fixed = injection.map_rows(lambda tensor: tensor.to(self._lm.device))
        method = Materialised([fixed] * (max(example.prompt for example in rows) + 1))
        total = count = 0.0
        for start in range(0, len(rows), AT_ONCE):
            batch = collate(rows[start : start + AT_ONCE], self._lm.device)
            losses = objective_of(self._task)(self._lm, method, batch, None).values
            total, count = total + float(losses.sum()), count + len(losses)
        return total / count
