"""How many answers are in hand, and how long those that wait will take, by how long others took lately."""

from __future__ import annotations

import math
import time
from typing import Protocol, final

LEAST, MOST = 1.0, 60.0  # seconds that a client is told to wait
WEIGHT = 0.1  # of the newest answer in the mean


class Held(Protocol):
    """An answer on its way."""

    ended: bool
    cancelled: bool
    begun: float  # when, of time.monotonic


@final
class Room:
    """The answers in hand, of which there may be `capacity`. One thread at a time may ask."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._in_hand: list[Held] = []

    def held(self) -> int:
        """Those that have not ended; one that was cancelled takes no room from then on."""
        self._in_hand = [answer for answer in self._in_hand if not (answer.ended or answer.cancelled)]
        return len(self._in_hand)

    @property
    def oldest(self) -> float:
        """When the first of them began, of time.monotonic."""
        return min((answer.begun for answer in self._in_hand), default=time.monotonic())

    def take(self, answer: Held) -> None:
        """One more, for which there was room."""
        self._in_hand.append(answer)


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

        `so_far`: how long the oldest has taken; where that is longer than answers took lately, it counts.
        """
        mean = max(self.mean or 0.0, so_far)
        return float(min(MOST, max(LEAST, math.ceil(mean * ahead / max(1, at_once)))))
