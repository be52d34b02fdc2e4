"""Divides the time that a comparison may take among its phases.

What is left out is kept in words. A training that has begun is stopped only in the search, where all rates of
a method stop at the same time; everything else that has begun is finished, so that the time is exceeded by no
more than that. Nothing here runs a trial.
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
        """Return the seconds that are left; infinite if there is no limit."""
        return self._end - self.clock()

    def until(self, reserved: float = 0.0) -> float | None:
        """Return the time after which nothing begins, if `reserved` seconds are kept for later phases."""
        return None if self.within is None else self._end - reserved

    def shared(self, jobs: int, reserved: float = 0.0) -> list[float | None]:
        """Return when each of so many jobs must end, in this order: equal shares of the unreserved time."""
        if self.within is None:
            return [None] * jobs
        now, rounds = self.clock(), math.ceil(jobs / self.workers)
        span = max(0.0, self._end - reserved - now)
        return [now + span * (job // self.workers + 1) / rounds for job in range(jobs)]

    def rounds(self, seconds: Mapping[str, float], score: float, seeds: int) -> list[list[str]]:
        """Return the candidates whose finals are trained, seed by seed.

        `seconds` are those of each candidate's final, `score` those of scoring one. Every seed but the first
        is for all or for none.
        """
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
    """Estimate the seconds of a final training of so many steps from the trials of its search."""
    paces = [r["seconds"] / max(1, r["steps"]) for r in records if r.get("seconds") and r.get("steps")]
    return ALONE * steps * max(paces, default=0.0)


def score_seconds(references: Sequence[Record], dev_rows: int, rows: int) -> float:
    """Estimate the seconds of scoring a final on so many rows from the plain model's on the dev rows."""
    able = [r for r in references if r["status"] == "done" and r["contestant"] != "tf-idf"]
    seconds = [r["seconds"] for r in able if r.get("seconds")]
    return min(seconds, default=0.0) / max(1, dev_rows) * rows
