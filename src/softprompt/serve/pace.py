"""How long those that wait will take, by how long answers took lately."""

from __future__ import annotations

import math
from typing import final

LEAST, MOST = 1.0, 60.0  # seconds that a client is told to wait
WEIGHT = 0.1  # of the newest answer in the mean


@final
class Pace:
    """A moving mean of the seconds that an answer takes, once it is begun."""

    def __init__(self) -> None:
        self.mean: float | None = None

    def ended(self, seconds: float) -> None:
        """An answer took so long."""
        self.mean = seconds if self.mean is None else self.mean + WEIGHT * (seconds - self.mean)

    def wait(self, ahead: int, at_once: int, so_far: float = 0.0) -> float:
        """Seconds until `ahead` answers, `at_once` side by side, are done: whole ones, from 1 to 60.

        `so_far`: how long the oldest has taken, which is all that is known before the first one ends.
        """
        mean = so_far if self.mean is None else self.mean
        return float(min(MOST, max(LEAST, math.ceil(mean * ahead / max(1, at_once)))))
