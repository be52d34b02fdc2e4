"""The model, rows, clock and size are shared by all parts of a running demo."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .corpus import DemoData, Row
from .plan import AT_MOST, SECONDS, Paces, Size, fit, ladder, seconds


@dataclass
class Demo:
    """A demo that is running."""

    lm: Any
    data: DemoData
    folder: Path
    started: float
    size: Size
    paces: Paces | None = None
    slower: float = 1.0  # how much longer the last part took than was measured
    trained: bool = False  # from the first tuned candidate on, later ones may have fewer steps but no more

    def __post_init__(self) -> None:
        self.full = self.size
        self.sizes: Sequence[Size] = ladder(self.size)
        self.rows = balanced(self.data.test)

    def spent(self) -> float:
        """The seconds that have passed since the start."""
        return time.perf_counter() - self.started

    def report(self, text: str) -> None:
        """Write a line with the time to stderr."""
        print(f"[{self.spent():4.0f} s] {text}", file=sys.stderr, flush=True)

    def plan(self, parts: Sequence[int | None], first: bool) -> float:
        """Set the size for the remaining parts; return their expected seconds.

        After the first part the test rows can only become fewer, since a row that one part left out cannot
        be compared, and all parts answer in the same number of tokens.
        """
        assert self.paces is not None
        sizes, now = self.sizes, self.size
        if not first:
            sizes = [
                replace(
                    s,
                    test=min(s.test, now.test),
                    answered=min(s.answered, now.answered),
                    tokens=now.tokens,
                )
                for s in sizes
            ]
        if self.trained:
            sizes = [s for s in sizes if s.steps <= now.steps and s.train <= now.train]
        self.size = fit(sizes, parts, self.paces, SECONDS - self.spent(), self.slower)
        if self.size != now:
            reduced = ", ".join(self.size.changes(self.full)) or "all of it"
            self.report(f"to end in ten minutes: {reduced}")
        self.trained = parts[0] is None
        return seconds(parts, self.size, self.paces, self.slower)

    def learn(self, part: int | None, took: float) -> None:
        """Record how much slower a part was than expected."""
        assert self.paces is not None
        self.slower = max(0.5, took / max(seconds([part], self.size, self.paces), 1e-9))

    def until(self, share: float) -> float:
        """Return the time at which a part must end that takes `share` of the remaining work."""
        return self.spent() + share * max(0.0, AT_MOST - self.spent())


def balanced(rows: Sequence[Row]) -> list[Row]:
    """Order the rows so that the first n of them have each prompt in proportion, for every n."""
    counts = Counter(row["prompt"] for row in rows)
    seen: Counter[str] = Counter()
    places = []
    for row in rows:
        seen[row["prompt"]] += 1
        places.append((seen[row["prompt"]] - 0.5) / counts[row["prompt"]])
    return [rows[i] for i in sorted(range(len(rows)), key=places.__getitem__)]
