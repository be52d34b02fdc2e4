"""A run is written to its journal and to its trackers, from its start to its end, and when it is resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from .._system.notes import note
from .._system.progress import say
from ..config.sections.track import TrackConfig
from ..errors import SoftPromptError
from .base import Status, Subject, Tracker
from .feed import Feed
from .journal import Journal, Line
from .registry import makers


@final
class Session:
    """Tracks one run. `run` names what decides its numbers; with `anew` nothing of an earlier run is kept.

    The trackers start at once. Raises SoftPromptError where one cannot.
    """

    def __init__(
        self, subject: Subject, track: TrackConfig, run: str, *, anew: bool, objects: Sequence[Any] = ()
    ) -> None:
        self.journal = Journal(subject.folder, run, anew=anew)
        self._subject, self._is_open, self._step = subject, True, 0
        self._feeds: list[Feed] = []
        self._ids: dict[str, str | None] = {}
        self._sent: dict[str, int | None] = {}  # the last step that a tracker has; None for a new run
        try:
            for name, make in makers(track, subject, objects).items():
                self._start(name, make)
        except BaseException:
            self.stop("failed")
            raise

    def _start(self, name: str, make: Callable[[], Tracker]) -> None:
        id, feed = self.journal.tracked(name), Feed(name, make())
        try:
            self._ids[name] = feed.start(id)
        except SoftPromptError as error:
            if id is None:
                raise
            note(f"the tracker {name} cannot resume its run {id} ({error.why}): it begins a new one")
            id, feed = None, Feed(name, make())
            self._ids[name] = feed.start(None)
        known = self.journal.last_step if feed.last_step is None else feed.last_step
        self._sent[name] = None if id is None else min(known, self.journal.last_step)
        self._feeds.append(feed)
        say(f"tracking with {name}: {feed.where}")

    def begin(self, first: Mapping[str, Any], step: int) -> None:
        """Continue after `step`; trackers whose run is new receive the steps before it."""
        self._step = step
        earlier = [line for line in self.journal.steps if line["step"] <= step]
        self.journal.begin(first, step)
        for feed in self._feeds:
            id = self._ids[feed.name]
            self.journal.write("tracker", {"name": feed.name, "id": id, "resumed_at": step})
            if step and self._sent[feed.name] is None:
                note(f"the tracker {feed.name} has a new run, which receives the first {step} steps too")
            for line in earlier:
                self._send(feed, line)

    def step(self, line: Line) -> None:
        """Write a step: see `journal`."""
        self._step = line["step"]
        self.journal.write("step", line)
        for feed in self._feeds:
            self._send(feed, line)

    def _send(self, feed: Feed, line: Line) -> None:
        if line["step"] > (
            self._sent[feed.name] or 0
        ):  # else it has this step from before the run was stopped
            feed.log(numbers(line), line["step"])
        if feed.is_lost and self._ids[feed.name] is not None:
            self._ids[feed.name] = None  # a later part begins a new run, with all steps
            self.journal.write("tracker", {"name": feed.name, "id": None, "resumed_at": line["step"]})

    def end(
        self, result: Line, scores: Mapping[str, float], facts: Mapping[str, str], status: Status
    ) -> None:
        """Write the result, and end the runs of the trackers."""
        self.journal.write("result", result)
        self._close(scores, facts, status)

    def stop(self, status: Status) -> None:
        """End without a result, unless it has ended."""
        if self._is_open:
            self._close({}, {}, status)

    def _close(self, scores: Mapping[str, float], facts: Mapping[str, str], status: Status) -> None:
        self._is_open = False
        for feed in self._feeds:
            feed.end(scores, facts, self._step, status)
        self.journal.close()


def numbers(line: Line) -> dict[str, float]:
    """Return the numbers of a step under the names that trackers show: `train/loss`, `dev/accuracy`, …"""
    values = {f"train/{key}": line.get(key) for key in ("loss", "lr", "tokens_per_second", "seconds")}
    values |= {f"dev/{name}": value for name, value in (line.get("dev") or {}).items()}
    return {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
