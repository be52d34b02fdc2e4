"""Running and waiting answers are counted, and their time is estimated from answers that ended recently."""

from __future__ import annotations

import math
import time
from typing import Protocol, final

LEAST, MOST = 1.0, 60.0  # seconds that Retry-After may be
WEIGHT = 0.1  # weight of the newest answer in the mean


class Held(Protocol):
    """An answer that runs or waits."""

    ended: bool
    cancelled: bool
    begun: float  # by time.monotonic


@final
class Room:
    """Counts running and waiting answers, at most `capacity`. One thread at a time may call it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._in_hand: list[Held] = []

    def held(self) -> int:
        """Return how many have not ended; a cancelled answer does not count."""
        self._in_hand = [answer for answer in self._in_hand if not (answer.ended or answer.cancelled)]
        return len(self._in_hand)

    @property
    def oldest(self) -> float:
        """The time at which the oldest of them began, by time.monotonic."""
        return min((answer.begun for answer in self._in_hand), default=time.monotonic())

    def take(self, answer: Held) -> None:
        self._in_hand.append(answer)


@final
class Pace:
    """Estimates waiting times by a moving mean of the seconds that an answer takes."""

    def __init__(self) -> None:
        self.mean: float | None = None

    def ended(self, seconds: float) -> None:
        self.mean = seconds if self.mean is None else self.mean + WEIGHT * (seconds - self.mean)

    def wait(self, ahead: int, at_once: int, so_far: float = 0.0) -> float:
        """Return whole seconds, from 1 to 60, until `ahead` answers, `at_once` in parallel, are done.

        `so_far`: how long the oldest has taken, which counts where it is longer than the mean.
        """
        mean = max(self.mean or 0.0, so_far)
        return float(min(MOST, max(LEAST, math.ceil(mean * ahead / max(1, at_once)))))
