"""Stops trials of one candidate at half time if the others are ahead.

The rule is that of a median pruner (Golovin et al. 2017, "Google Vizier"), over trials that may train side by
side: Optuna's own looks at finished trials only, and trials that train together finish together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

FEWEST = 2  # others that a trial is compared with


class Pruner:
    """A pruner is given dev scores (higher is better) as they come, and says which learner is behind.

    `rivals` are the curves of trials that ended before: from step to the best score until then.
    """

    def __init__(self, steps: int, rivals: Sequence[Mapping[int, float]] = ()) -> None:
        self._from = steps / 2
        self._steps = steps
        self._rivals = list(rivals)
        self._curves: dict[int, dict[int, float]] = {}
        self.pruned: set[int] = set()

    def note(self, learner: int, step: int, score: float) -> None:
        """Note the dev score of a learner after a step."""
        curve = self._curves.setdefault(learner, {})
        curve[step] = max([score, *curve.values()])

    def is_behind(self, learner: int) -> bool:
        """Return whether it is below the median of the others at its last step, from half time on."""
        curve = self._curves.get(learner)
        if not curve or learner in self.pruned:
            return learner in self.pruned
        step = max(curve)
        others = [c for i, c in self._curves.items() if i != learner] + self._rivals
        known = [c[step] for c in others if step in c]
        if self._from <= step < self._steps and len(known) >= FEWEST and curve[step] < median(known):
            self.pruned.add(learner)
        return learner in self.pruned


def curve_of(record: Mapping[str, Any], metric: str, higher_is_better: bool) -> dict[int, float]:
    """Return the curve of a finished trial, from its record's history."""
    best, curve = float("-inf"), {}
    for entry in record.get("history") or []:
        if metric in entry:
            best = max(best, entry[metric] if higher_is_better else -entry[metric])
            curve[int(entry["step"])] = best
    return curve
