"""Shows a comparison's progress on stderr: a live table in a terminal, a line for each trial elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from .output import duration, log, number

SECONDS_BETWEEN_LINES = 30.0
ORDER = ("reference", "search", "final", "curve", "score", "measure", "growth", "newcomer")


class Contest:
    """Receives stages, the trials to come, and every trial that ended; use it as a context."""

    def __init__(self, estimate: float | None = None, within: float | None = None) -> None:
        """Take the `estimate` of its seconds, and the seconds that it may take (`within`)."""
        self._estimate, self._within = estimate, within
        self._began = self._written = time.monotonic()
        self._ended = threading.Event()
        self._live: Any = None
        self._stage = ""
        self._counts: dict[tuple[str, str], int] = {}
        self._done: dict[tuple[str, str], int] = {}
        self._failed: dict[str, int] = {}
        self._best: dict[str, tuple[tuple[float, ...], str]] = {}
        self._pace: dict[tuple[str, str], list[float]] = {}  # seconds of trials that were run now
        self._last = time.monotonic()
        self.ran = 0

    def __enter__(self) -> Contest:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, markup=False, highlight=False)
            self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2)
            self._live.start()
        else:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the terminal as it is."""
        self._ended.set()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stage(self, text: str) -> None:
        """Show what is being done now."""
        self._stage = text
        self._last = time.monotonic()
        if self._live is None:
            log(text)

    def plan(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Take how many trials each candidate has in each phase."""
        self._counts = dict(counts)

    def record(self, record: Mapping[str, Any], was_there: bool) -> None:
        """Take a trial that has ended, now or in an earlier call."""
        name, phase = record["contestant"], record["phase"]
        key = name, phase
        self._done[key] = self._done.get(key, 0) + 1
        now = time.monotonic()
        if not was_there:
            self.ran += 1
            self._pace.setdefault(key, []).append(now - self._last)
            self._last = now
        if record["status"] == "failed":
            self._failed[name] = self._failed.get(name, 0) + 1
        elif record.get("dev_key") and phase in ("reference", "search", "final"):
            shown = next(iter((record.get("dev") or _values(record)).values()), None)
            rank = tuple(x if x is not None else float("-inf") for x in record["dev_key"])
            if name not in self._best or rank > self._best[name][0]:
                self._best[name] = rank, number(shown)
        if self._live is None and not was_there:
            log(self._line(record))
            self._written = time.monotonic()

    def beat(self) -> None:
        """Write a line where there was none for a while: one trial may take minutes."""
        now = time.monotonic()
        if now - self._written >= SECONDS_BETWEEN_LINES:
            done, total, left = sum(self._done.values()), sum(self._counts.values()), self.seconds_left
            tail = f"  about {duration(left)} left" if left and done < total else ""
            count = f"{done}/{total} trials, " if total else ""
            log(f"  {count}{duration(now - self._began)} so far{tail}")
            self._written = now

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            self.beat()

    @property
    def seconds_left(self) -> float | None:
        """Estimate by the pace of each kind of trial so far; a kind that has not come yet, by that of all."""
        every = [second for seconds in self._pace.values() for second in seconds]
        spent = time.monotonic() - self._began
        if not every:
            return None if self._estimate is None else max(0.0, self._estimate - spent)
        left, unknown = 0.0, 0
        for key, count in self._counts.items():
            alike = [s for (_, phase), seconds in self._pace.items() if phase == key[1] for s in seconds]
            same, open_ = self._pace.get(key) or alike, max(0, count - self._done.get(key, 0))
            if same:
                left += open_ * sum(same) / len(same)
            else:
                unknown += open_
        # references say little about the time of a training; the estimate does, until one has ended
        left += max(
            unknown * sum(every) / len(every), (self._estimate or 0.0) - spent - left if unknown else 0.0
        )
        left = max(0.0, left - (time.monotonic() - self._last))
        return left if self._within is None else min(left, max(0.0, self._within - spent))

    def _line(self, record: Mapping[str, Any]) -> str:
        done, total = sum(self._done.values()), sum(self._counts.values())
        settings = " ".join(f"{key.split('.')[-1]}={value}" for key, value in record["settings"].items())
        if record["status"] == "failed":
            outcome = f"failed: {record['error']['what']}"
        else:
            values = record.get("dev") or _values(record)
            name = next(iter(values), None)
            outcome = "" if name is None else f"{name} {number(values[name])}"
            outcome += " (pruned)" if record["status"] == "pruned" else ""
        seed = "" if record["seed"] is None else f"seed={record['seed']}"
        left = self.seconds_left
        phase = " ".join(filter(None, (record["phase"], record.get("about", {}).get("split", ""))))
        parts = [record["contestant"], phase, settings, seed, outcome]
        tail = "" if left is None or done >= total else f"  {duration(left)} left"
        return f"  {done:>{len(str(total))}}/{total}  " + "  ".join(filter(None, parts)) + tail

    def _table(self) -> Any:
        from rich.table import Table

        done, total, left = sum(self._done.values()), sum(self._counts.values()), self.seconds_left
        title = self._stage
        if total:
            title += f"   {done}/{total} trials"
        if left is not None and done < total:
            title += f"   {duration(left)} left"
        phases = [phase for phase in ORDER if any(p == phase and n for (_, p), n in self._counts.items())]
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for column in ("", *phases, "best dev", "failed"):
            table.add_column(column, justify="left" if not column else "right")
        for name in dict.fromkeys(name for name, _ in self._counts):
            cells = [
                f"{self._done.get((name, phase), 0)}/{count}" if count else ""
                for phase in phases
                for count in (self._counts.get((name, phase), 0),)
            ]
            best = self._best[name][1] if name in self._best else ""
            table.add_row(name, *cells, best, str(self._failed.get(name, "")))
        return table


def _values(record: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of a scored trial."""
    return {name: score["value"] for name, score in (record.get("metrics") or {}).items()}
