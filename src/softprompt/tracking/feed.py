"""Values reach a tracker through a thread of their own.

A tracker may be slow, hang or fail. A run waits for it only at its start, where a failure is an error, and at
its end, for a limited time. A failure between them is noted once, and ends the tracking: the run continues.
The thread also keeps runs apart: libraries keep their current run in variables of a thread.
"""

from __future__ import annotations

import contextlib
import io
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

from .._system.exceptions import reason
from .._system.notes import note
from .._system.secrets import without_secrets
from ..errors import SoftPromptError
from .base import Status, Tracker

START_SECONDS, END_SECONDS = 60.0, 60.0


@final
class Feed:
    """The thread of one tracked run."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self._tracker = name, tracker
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"tracker {name}")
        self.is_lost = False  # the tracker failed, and a note says so

    def start(self, id: str | None) -> str | None:
        """Begin the run, or resume that of `id`. Raises SoftPromptError where the tracker cannot."""
        result: list[str | None] = []
        started = threading.Event()

        def begin() -> None:
            try:
                result.append(self._tracker.start(id))
            finally:
                started.set()

        with no_stdout():
            self._thread.start()
            self._calls.put(begin)
            came = started.wait(START_SECONDS)
        if not result:
            self._calls.put(None)
            if came:
                self._thread.join(1.0)
            why = f"no answer within {START_SECONDS:.0f} s" if not came else self._why()
            self.is_lost = True
            raise SoftPromptError(
                f"the tracker {self.name} does not start",
                why=why,
                fix=f"correct track.{self.name} or leave it out; nothing was trained yet",
            )
        return result[0]

    @property
    def where(self) -> str:
        """Say where the run is."""
        return self._tracker.where

    @property
    def last_step(self) -> int | None:
        """Return the last step that the resumed run has, where the tracker tells."""
        return self._tracker.last_step

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers of a step, without waiting."""
        self._send(lambda: self._tracker.log(values, step))

    def table(self, name: str, columns: list[str], rows: list[list[Any]], text: str) -> None:
        """Log a table, without waiting."""
        self._send(lambda: self._tracker.table(name, columns, rows, text))

    def end(self, scores: Mapping[str, float], facts: Mapping[str, str], step: int, status: Status) -> None:
        """End the run once all is logged; note where that fails or takes too long."""
        self._send(lambda: self._tracker.end(scores, facts, step, status))
        self._calls.put(None)
        with no_stdout():
            self._thread.join(0.0 if self.is_lost else END_SECONDS)
        if self._thread.is_alive() and not self.is_lost:
            self.lose(f"it did not end within {END_SECONDS:.0f} s")
        self._look()

    def _send(self, call: Callable[[], Any]) -> None:
        self._look()
        if not self.is_lost:
            self._calls.put(call)

    def _look(self) -> None:
        if self._error is not None and not self.is_lost:
            self.lose(self._why())

    def lose(self, why: str) -> None:
        """Note that the tracker failed, and send it nothing more."""
        self.is_lost = True
        note(f"the tracker {self.name} failed ({why}): it gets no more values, and the run continues")

    def _why(self) -> str:
        return without_secrets(reason(self._error)) if self._error else "unknown"

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException as error:  # some libraries end with SystemExit
                self._error = error
                return


@contextlib.contextmanager
def no_stdout() -> Iterator[None]:
    """Drop what a library prints: stdout is for results, and may be JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
