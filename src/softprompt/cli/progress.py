"""How a run is followed on stderr: a live line in a terminal, plain lines every so often elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from .output import duration, log, number

if TYPE_CHECKING:
    from ..train import Event

SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Told of stages, cached rows and steps; use as a context."""

    def __init__(self) -> None:
        self._live: Any = None
        self._task: Any = None
        self._best = self._last = ""
        self._written = 0.0

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Live

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[facts]}"),
            )
            console = Console(stderr=True, markup=False, highlight=False)
            self._live = Live(*columns, console=console, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stage(self, text: str) -> None:
        """What is being done now."""
        self._forget_task()
        if self._live is None:
            log(text)
        else:
            self._live.console.print(text)

    def count(self, done: int, total: int) -> None:
        """Rows whose keys and values are kept."""
        self._show("cache", done, total, "rows")

    def step(self, event: Event) -> None:
        """One training step."""
        if event.dev is not None:
            self._last = f"dev {event.dev.name} {number(event.dev.shown)}"
            if event.is_best:
                self._best = f"best {number(event.dev.shown)} at {event.step}"
        left = f"{duration(event.seconds_left)} left" if event.step < event.steps else ""
        facts = [f"loss {number(event.loss)}", self._last, self._best, left]
        self._show("step", event.step, event.steps, "  ".join(filter(None, facts)), event.dev is not None)

    def steps(self, done: int, total: int, facts: list[str]) -> None:
        """Training steps of several prompts."""
        self._show("step", done, total, "  ".join(filter(None, facts)))

    def _show(self, what: str, done: int, total: int, facts: str, now: bool = False) -> None:
        if self._live is not None:
            if self._task is None:
                self._task = self._live.add_task(what, total=total, facts="")
            self._live.update(self._task, completed=done, total=total, facts=facts)
            return
        if now or done == total or time.monotonic() - self._written > SECONDS_BETWEEN_LINES:
            log(f"  {what} {done:>{len(str(total))}}/{total}  {facts}")
            self._written = time.monotonic()

    def _forget_task(self) -> None:
        if self._live is not None and self._task is not None:
            self._live.remove_task(self._task)
        self._task, self._written = None, time.monotonic()
