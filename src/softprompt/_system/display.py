"""Progress is shown as a bar in a terminal, as one line in a notebook, and as plain lines elsewhere.

Short work shows nothing. Work that reports nothing (a model that is loaded, one long batch) shows the seconds
that it has taken, so that it is seen to be alive.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any, Literal

from .progress import Clock, Progress, duration, follower, following

SECONDS_BETWEEN_LINES = 15.0
FIRST_LINE = 6.0  # seconds until work is long enough to be followed in lines
FIRST_BAR = 1.0
Kind = Literal["bar", "line", "lines"]


class Display:
    """Shows all work inside on stderr; use it as a context."""

    def __init__(self, kind: Kind | None = None, *, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self._kind: Kind = kind or kind_here()
        self._tasks: list[Progress] = []
        self._shown: dict[int, float] = {}  # when each task was last written
        self._live: Any = None
        self._bars: dict[int, Any] = {}
        self._lock, self._ended = threading.RLock(), threading.Event()
        self._watcher: threading.Thread | None = None
        self._width = 0
        self._context: Any = None

    def __enter__(self) -> Display:
        self._context = following(self)
        self._context.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)
        self._ended.set()
        with self._lock:
            self._tasks.clear()
            self._stop()

    def say(self, text: str) -> None:
        """Print a line."""
        with self._lock:
            if self._live is not None:
                self._live.console.print(text)
            else:
                self._wipe()
                print(text, file=sys.stderr, flush=True)

    def begun(self, task: Progress) -> None:
        """Follow a task."""
        with self._lock:
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, daemon=True)
                self._watcher.start()
            self._tasks.append(task)
            self._shown[id(task)] = self.clock() + FIRST_LINE - SECONDS_BETWEEN_LINES
            if self._live is not None:
                self._add_bar(task)

    def moved(self, task: Progress) -> None:
        """Show a task where it is due."""
        with self._lock:
            if self._kind == "lines":
                if task.important or self._is_due(task):
                    self._write(task)
            else:
                self._refresh()

    def ended(self, task: Progress) -> None:
        """Stop following a task."""
        with self._lock:
            if task not in self._tasks:
                return
            self._tasks.remove(task)
            self._shown.pop(id(task), None)
            if id(task) in self._bars:
                self._live.remove_task(self._bars.pop(id(task)))
            if not self._tasks:
                self._stop()

    def beat(self) -> None:
        """Show a task that has not reported for long."""
        with self._lock:
            if not self._tasks:
                return
            if self._kind == "lines":
                if self._is_due(self._tasks[-1]):
                    self._write(self._tasks[-1])
            else:
                self._refresh()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self.beat()

    def _is_due(self, task: Progress) -> bool:
        return self.clock() - self._shown[id(task)] >= SECONDS_BETWEEN_LINES

    def _write(self, task: Progress) -> None:
        self._shown[id(task)] = self.clock()
        print(f"  {line_of(task)}", file=sys.stderr, flush=True)

    def _refresh(self) -> None:
        if self._tasks[0].seconds < FIRST_BAR:
            return
        if self._kind == "line":
            text = line_of(self._tasks[0])
            self._width = max(self._width, len(text))
            print("\r" + text.ljust(self._width), end="", file=sys.stderr, flush=True)
        elif self._live is None:
            self._start()

    def _start(self) -> None:
        self._live = _bars()
        self._live.start()
        for task in self._tasks:
            self._add_bar(task)

    def _add_bar(self, task: Progress) -> None:
        self._bars[id(task)] = self._live.add_task(task.name, total=None, ours=task)

    def _stop(self) -> None:
        self._wipe()
        if self._live is not None:
            self._live.stop()
        self._live, self._bars = None, {}

    def _wipe(self) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)
            self._width = 0


def line_of(task: Progress) -> str:
    """Format a task, as in `rows scored 40/120  loss 0.5  20s left`."""
    count = "" if task.total is None else f" {task.done:>{len(str(task.total))}}/{task.total}"
    return "  ".join(filter(None, [f"{task.name}{count}", *task.facts, left_of(task)]))


def left_of(task: Progress) -> str:
    """Format the time left; the time spent where only that is known, or where the work is late."""
    left = task.seconds_left
    if task.total is not None and task.done >= task.total:
        return ""
    return f"{duration(left)} left" if left else f"{duration(task.seconds)} so far"


def _bars() -> Any:
    """Return rich's bars, which read our tasks whenever a bar is drawn."""
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn
    from rich.progress_bar import ProgressBar
    from rich.table import Column
    from rich.text import Text

    class Bar(ProgressColumn):
        max_refresh = None

        def render(self, task: Any) -> ProgressBar:
            ours: Progress = task.fields["ours"]
            return ProgressBar(ours.total, ours.done, width=20, pulse=not ours.total)

    class Tail(ProgressColumn):
        def render(self, task: Any) -> Text:
            ours: Progress = task.fields["ours"]
            count = [] if ours.total is None else [f"{ours.done}/{ours.total}"]
            return Text("  ".join(filter(None, [*count, left_of(ours), *ours.facts])))

    class Name(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(task.fields["ours"].name)

    console = Console(stderr=True, markup=False, highlight=False)
    tail = Tail(Column(no_wrap=True, overflow="ellipsis"))
    # output that goes to a file must not be sent to the terminal
    return Progress(Name(), Bar(), tail, console=console, transient=True, redirect_stdout=sys.stdout.isatty())


def kind_here() -> Kind:
    """Return how progress is best shown in this process."""
    if sys.stderr.isatty():
        return "bar"
    return "line" if _in_notebook() else "lines"


def is_watched() -> bool:
    """Return whether a person watches, in a terminal or a notebook."""
    return kind_here() != "lines"


def shown(progress: bool | None) -> contextlib.AbstractContextManager[Any]:
    """Return a context that shows the progress of a call of the library; None: where a person watches.

    A follower that is there already stays.
    """
    wanted = is_watched() if progress is None else progress
    if follower() is not None:
        return contextlib.nullcontext() if wanted or progress is None else following(None)
    return Display() if wanted else contextlib.nullcontext()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
