"""A start is drawn several times, and the draw with the smallest loss on training rows is kept.

The starts that are drawn are those of `init=context` (which training rows), `vocab` (which tokens) and
`random`. Which rows a prefix starts from matters as the choice of demonstrations does (Zhao et al. 2021,
"Calibrate Before Use"; CT-KV, 2507.04221). A draw costs one pass over a few rows and no training step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import SoftPromptError
from ..injection import Injection
from .base import Setting

Start = TypeVar("Start")
DRAWN = ("context", "vocab", "random")


@dataclass(frozen=True)
class Draws:
    """So many starts are drawn; `loss(prompt, start)` is that of one, and smaller is better."""

    count: int = 1
    loss: Callable[[int, Any], float] | None = None

    @staticmethod
    def of(setting: Setting, count: int, injection: Callable[[Any], Injection]) -> Draws:
        """Make `count` draws, whose losses are those of the injections (of one row) that they become."""
        measure = setting.start_loss
        if count == 1 or measure is None:
            return Draws(count)
        return Draws(count, lambda index, start: measure(index, injection(start)))

    def check(self, setting: Setting, init: str) -> None:
        """Raise SoftPromptError where a start cannot be drawn so many times, or cannot be compared."""
        if self.count < 1:
            raise SoftPromptError(
                f"method.draws={self.count} is not valid",
                why="it is how many starts are compared",
                fix="method.draws=8, or 1 for one start",
            )
        if self.count == 1:
            return
        if init not in DRAWN:
            raise SoftPromptError(
                f"method.draws={self.count} has no effect with init={init}",
                why="this start is not drawn at random, so that all draws would be the same",
                fix=f"method.init={DRAWN[0]}, or leave method.draws out",
            )
        if self.loss is None:
            raise SoftPromptError(
                f"method.draws={self.count} needs training rows to compare starts on",
                why="a start is kept for its loss on rows, and none was given with the model",
                fix="method.draws=1, or softprompt tune, which reads the rows",
            )

    def best(self, index: int, start: Callable[[int, int], Start]) -> Start:
        """Return the start of prompt `index` with the smallest loss, the first of equals.

        `start(index, draw)` makes one.
        """
        starts = [start(index, draw) for draw in range(self.count)]
        if self.loss is None:
            return starts[0]
        losses = [self.loss(index, each) for each in starts]
        return starts[min(range(len(starts)), key=losses.__getitem__)]


ONE = Draws()
