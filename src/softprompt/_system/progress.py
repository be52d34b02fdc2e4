"""How far long work is: the one way in which the library tells it.

Whoever does long work opens a `task` and moves it on. Whoever shows it follows (`following`); where nobody
does, nothing happens. The follower travels in a context variable, so that two threads do not see each
other's, and work in another process is silent. This file prints nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Protocol, TypeVar

from ..errors import WORDING

T = TypeVar("T")
Clock = Callable[[], float]


class TimeLeft:
    """Seconds left, by the pace since the first part was done: the first one also warms the machine up."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock, self.started = clock, clock()
        self._first: tuple[float, float] | None = None  # when, and how much was done then
        self._last = self.started, 0.0

    def at(self, share: float) -> None:
        """So much of the work is done, from 0 to 1."""
        self._last = self._clock(), share
        if self._first is None and share > 0:
            self._first = self._last

    def left(self) -> float | None:
        """None before two parts are done."""
        if self._first is None or self._last[1] <= self._first[1]:
            return None
        (begun, before), (now, share) = self._first, self._last
        whole = (1 - share) * (now - begun) / (share - before)
        return max(0.0, whole - (self._clock() - now))

    def spent(self) -> float:
        """Seconds since the work began."""
        return self._clock() - self.started


class Progress:
    """One piece of long work: `done` of `total` (None: not known), with facts beside it."""

    def __init__(self, what: str, total: int | None, follower: Follower | None, clock: Clock) -> None:
        self.what, self.total, self.done = what, total, 0
        self.facts: Sequence[str] = ()
        self.important = False  # the last move is to be seen whenever it came
        self._pace, self._follower = TimeLeft(clock), follower
        self._left: tuple[float, float] | None = None  # as the caller knows it, and when it was told

    def at(
        self,
        done: int,
        *,
        share: float | None = None,
        facts: Sequence[str] = (),
        important: bool = False,
        left: float | None = None,
        total: int | None = None,
    ) -> None:
        """`done` are done. `share` is that part of the work, where its parts are unlike; `left` the seconds
        left, where the caller knows better than a mean pace says; `total` where it was not known before."""
        self.done, self.facts, self.important = done, facts, important
        self.total = total or self.total
        if self.total:
            self._pace.at(done / self.total if share is None else share)
        self._left = None if left is None else (left, self._pace.spent())
        if self._follower is not None:
            self._follower.moved(self)

    @property
    def seconds_left(self) -> float | None:
        """None where it is not known yet."""
        if self._left is not None:
            left, told = self._left
            return max(0.0, left - (self.seconds - told))
        return self._pace.left()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._pace.spent()


class Follower(Protocol):
    """Shows progress, or keeps it."""

    clock: Clock

    def say(self, text: str) -> None:
        """A sentence for whoever waits."""
        ...

    def begun(self, task: Progress) -> None: ...

    def moved(self, task: Progress) -> None: ...

    def ended(self, task: Progress) -> None: ...


_FOLLOWER: ContextVar[Follower | None] = ContextVar("follower", default=None)


def follower() -> Follower | None:
    """Who follows here."""
    return _FOLLOWER.get()


@contextlib.contextmanager
def following(who: Follower | None) -> Iterator[None]:
    """Let `who` follow all work inside; None: nobody."""
    token = _FOLLOWER.set(who)
    try:
        yield
    finally:
        _FOLLOWER.reset(token)


def say(text: str) -> None:
    """Tell whoever follows what is done now, in the caller's words for settings."""
    who = _FOLLOWER.get()
    if who is not None:
        who.say(WORDING.get()(text))


@contextlib.contextmanager
def task(what: str, total: int | None = None) -> Iterator[Progress]:
    """Long work of `total` parts; to be moved on with `at`."""
    who = _FOLLOWER.get()
    made = Progress(what, total, who, time.monotonic if who is None else who.clock)
    if who is None:
        yield made
        return
    who.begun(made)
    try:
        yield made
    finally:
        who.ended(made)


def track(items: Sequence[T], what: str, weights: Iterable[float] | None = None) -> Iterator[T]:
    """The items, one after another, as one task; `weights` are what each takes, relative to the others."""
    sizes = [1.0] * len(items) if weights is None else list(weights)
    total, done = sum(sizes) or 1.0, 0.0
    with task(what, len(items)) as own:
        for number, (item, size) in enumerate(zip(items, sizes, strict=True), 1):
            yield item
            done += size
            own.at(number, share=done / total)


def duration(seconds: float) -> str:
    """Seconds, as `3m 20s`."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
