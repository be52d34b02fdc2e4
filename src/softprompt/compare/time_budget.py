"""The time that a comparison may take, and what of it each phase gets.

What was left out is kept in words. A training that has begun is cut off in the search alone, where all rates
of a method are cut alike; whatever else has begun is finished, so that the time is overrun by no more than
that. Nothing here runs a trial.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]
CLOSING, CLOSING_SHARE = 20.0, 0.1  # seconds for statistics and the report; at most such a share of the time
ALONE = 1.3  # times what a trial of a search took, since those share caches and passes


@dataclass
class Allowance:
    """`within` seconds for all calls together (None: as long as it takes), of which `used` are gone."""

    within: float | None
    used: float = 0.0
    workers: int = 1
    clock: Callable[[], float] = time.time  # which other processes read as well
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._end = math.inf
        if self.within is not None:
            closing = min(CLOSING, CLOSING_SHARE * self.within)
            self._end = self.clock() + self.within - self.used - closing

    def left(self) -> float:
        """Seconds; infinite where there is no limit."""
        return self._end - self.clock()

    def until(self, reserved: float = 0.0) -> float | None:
        """When to begin nothing more, if `reserved` seconds are kept for what comes later."""
        return None if self.within is None else self._end - reserved

    def shared(self, jobs: int, reserved: float = 0.0) -> list[float | None]:
        """When each of so many jobs, run in this order, must end: equal shares, but for what is reserved."""
        if self.within is None:
            return [None] * jobs
        now, rounds = self.clock(), math.ceil(jobs / self.workers)
        span = max(0.0, self._end - reserved - now)
        return [now + span * (job // self.workers + 1) / rounds for job in range(jobs)]

    def rounds(self, seconds: Mapping[str, float], score: float, seeds: int) -> list[list[str]]:
        """Who trains finally, seed by seed: `seconds` are those of each contestant's final, `score` those of
        scoring one. Every seed but the first is for all or for none."""
        if self.within is None:
            return [list(seconds)] * seeds
        first, left = dict(seconds), self.left()
        while first and self._of(first, score) > left:
            dearest = max(first, key=first.__getitem__)
            del first[dearest]
            self.left_out.append(f"{dearest}: its final training")
        if not first:
            return []
        count = max(1, min(seeds, int(left / max(self._of(first, score), 1e-9))))
        if count < seeds:
            self.left_out.append(f"{seeds - count} of {seeds} seeds")
        return [list(first)] * count

    def _of(self, seconds: Mapping[str, float], score: float) -> float:
        return sum(each + score for each in seconds.values()) / self.workers


def final_seconds(records: Sequence[Record], steps: int) -> float:
    """Of a final training of so many steps, by the trials of its search."""
    found = [r["seconds"] / max(1, r["steps"]) for r in records if r.get("seconds") and r.get("steps")]
    return ALONE * steps * max(found, default=0.0)


def score_seconds(references: Sequence[Record], dev_rows: int, rows: int) -> float:
    """Of scoring a final training on so many rows, by what the plain model took for the dev rows."""
    able = [r for r in references if r["status"] == "done" and r["contestant"] != "tf-idf"]
    found = [r["seconds"] for r in able if r.get("seconds")]
    return min(found, default=0.0) / max(1, dev_rows) * rows
