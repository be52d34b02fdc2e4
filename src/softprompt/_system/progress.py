"""Long work reports its progress in one way.

The code that does long work opens a `task` and reports how much is done. The code that shows it follows
(`following`); without a follower, nothing happens. The follower is in a context variable, so that two threads
do not see each other's, and work in another process is silent. This module prints nothing.
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
    """Estimates the seconds left from the pace since the first part, which also warms the machine up."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock, self.started = clock, clock()
        self._first: tuple[float, float] | None = None  # when, and how much was done then
        self._last = self.started, 0.0

    def at(self, share: float) -> None:
        """Record that this share of the work, from 0 to 1, is done."""
        self._last = self._clock(), share
        if self._first is None and share > 0:
            self._first = self._last

    def left(self) -> float | None:
        """Return the seconds left; None before two parts are done."""
        if self._first is None or self._last[1] <= self._first[1]:
            return None
        (begun, before), (now, share) = self._first, self._last
        whole = (1 - share) * (now - begun) / (share - before)
        return max(0.0, whole - (self._clock() - now))

    def spent(self) -> float:
        """Return the seconds since the work began."""
        return self._clock() - self.started


class Progress:
    """Holds the state of a piece of long work: `done` of `total` (None: not known), with facts beside it."""

    def __init__(self, name: str, total: int | None, follower: Follower | None, clock: Clock) -> None:
        self.name, self.total, self.done = name, total, 0
        self.facts: Sequence[str] = ()
        self.important = False  # the last report is shown even if it is not due
        self._pace, self._follower = TimeLeft(clock), follower
        self._left: tuple[float, float] | None = None  # the caller's estimate, and when it was made

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
        """Report that `done` parts are done.

        `share` is the part of the work that is done, where its parts differ in size; `left` the seconds left,
        where the caller knows better than the mean pace; `total` the number of parts, where it was not known
        before.
        """
        self.done, self.facts, self.important = done, facts, important
        self.total = total or self.total
        if self.total:
            self._pace.at(done / self.total if share is None else share)
        self._left = None if left is None else (left, self._pace.spent())
        if self._follower is not None:
            self._follower.moved(self)

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds left; None where they are not known yet."""
        if self._left is not None:
            left, since = self._left
            return max(0.0, left - (self.seconds - since))
        return self._pace.left()

    @property
    def seconds(self) -> float:
        """Return the seconds since the work began."""
        return self._pace.spent()


class Follower(Protocol):
    """Shows progress, or keeps it."""

    clock: Clock

    def say(self, text: str) -> None:
        """Show a sentence."""
        ...

    def begun(self, task: Progress) -> None: ...

    def moved(self, task: Progress) -> None: ...

    def ended(self, task: Progress) -> None: ...


_FOLLOWER: ContextVar[Follower | None] = ContextVar("follower", default=None)


def follower() -> Follower | None:
    """Return the follower of work in this context."""
    return _FOLLOWER.get()


@contextlib.contextmanager
def following(who: Follower | None) -> Iterator[None]:
    """Let `who` follow all work inside; with None, nobody follows."""
    token = _FOLLOWER.set(who)
    try:
        yield
    finally:
        _FOLLOWER.reset(token)


def say(text: str) -> None:
    """Show a sentence to the follower, in the caller's words for settings."""
    who = _FOLLOWER.get()
    if who is not None:
        who.say(WORDING.get()(text))


@contextlib.contextmanager
def task(name: str, total: int | None = None) -> Iterator[Progress]:
    """Open a piece of long work of `total` parts; report its progress with `at`."""
    who = _FOLLOWER.get()
    result = Progress(name, total, who, time.monotonic if who is None else who.clock)
    if who is None:
        yield result
        return
    who.begun(result)
    try:
        yield result
    finally:
        who.ended(result)


def track(items: Sequence[T], name: str, weights: Iterable[float] | None = None) -> Iterator[T]:
    """Yield the items as one task; `weights` are the relative costs of the items."""
    sizes = [1.0] * len(items) if weights is None else list(weights)
    total, done = sum(sizes) or 1.0, 0.0
    with task(name, len(items)) as progress:
        for number, (item, size) in enumerate(zip(items, sizes, strict=True), 1):
            yield item
            done += size
            progress.at(number, share=done / total)


def duration(seconds: float) -> str:
    """Format seconds, as in `3m 20s`."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
