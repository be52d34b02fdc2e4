"""Dev scores by the seconds of training: a curve for each method, and who leads at some times.

A score counts from when it was measured, and the best so far is kept, as training keeps its vectors. At equal
time the seconds are those of the whole method, of its search and all seeds: what its final runs had learned
when a tenth of their steps was done is shown at a tenth of the method's seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .aggregate import mean
from .schema import Comparison, Spent, Trial

SHARES = (0.1, 0.3, 1.0)  # of the whole time, at which the leader is named


@dataclass(frozen=True)
class Reached:
    """The mean dev score over seeds after so many seconds, with the lowest and the highest seed."""

    seconds: float
    value: float
    low: float
    high: float
    share: float  # of the training's steps that were done


Curves = dict[str, list[Reached]]


def of_trainings(comparison: Comparison) -> Curves:
    """Return a curve for each method with final runs, by the seconds of one of them."""
    curves = {}
    for item in comparison.methods:
        finals = [
            trial
            for trial in comparison.trials
            if (trial.contestant, trial.phase, trial.status) == (item.name, "final", "done")
        ]
        if finals and (points := _mean(comparison, [_best_so_far(comparison, t) for t in finals])):
            curves[item.name] = points
    return curves


def of_methods(comparison: Comparison) -> Curves:
    """Return a curve for each method with a budget, by the seconds of its search and all its final runs."""
    spent = {each.contestant: each for each in comparison.times}
    curves = {}
    for name, points in of_trainings(comparison).items():
        if name in spent:
            total, cache = taken(spent[name]), spent[name].cache_seconds or 0.0
            scale = (total - cache) / points[-1].seconds
            curves[name] = [replace(p, seconds=cache + scale * p.seconds) for p in points]
    return curves


def taken(spent: Spent) -> float:
    """Return the measured seconds of a method, or the planned ones where they are not known."""
    return spent.planned_seconds if spent.seconds is None else spent.seconds


def marks(comparison: Comparison, curves: Curves) -> list[tuple[float, float]]:
    """Return the shares of the time at which a leader is named, and the seconds that each is.

    The whole is the budget or, at equal steps, the longest training.
    """
    budget = max((each.budget_seconds for each in comparison.times), default=None)
    whole = budget or max(points[-1].seconds for points in curves.values())
    return [(share, share * whole) for share in SHARES]


def at(comparison: Comparison, points: Sequence[Reached], share: float, seconds: float) -> Reached | None:
    """Return the last score of a method at a mark; None before the first.

    At equal time a mark is a share of the steps, since the seconds of a method may differ from its budget.
    """
    if comparison.times:
        known = [point for point in points if point.share <= share + 1e-9]
    else:
        known = [point for point in points if point.seconds <= seconds * 1.001]
    return known[-1] if known else None


def leaders(comparison: Comparison, curves: Curves, share: float, seconds: float) -> list[str]:
    """Return the methods with the best mean at a mark; several if their means are equal."""
    values = {
        name: point.value
        for name, points in curves.items()
        if (point := at(comparison, points, share, seconds)) is not None
    }
    best = max if comparison.study.higher_is_better else min
    return [name for name, value in values.items() if math.isclose(value, best(values.values()))]


def _best_so_far(comparison: Comparison, trial: Trial) -> list[tuple[int, float, float]]:
    """Return (step, seconds, best score until then) of each dev score whose seconds are known."""
    metric, best, result = comparison.study.metric, None, []
    better = max if comparison.study.higher_is_better else min
    for entry in trial.history:
        value, seconds = entry.get(metric), entry.get("seconds")
        if value is None or not seconds:
            continue
        best = value if best is None else better(best, value)
        result.append((int(entry["step"]), float(seconds), best))
    return result


def _mean(comparison: Comparison, seeds: Sequence[Sequence[tuple[int, float, float]]]) -> list[Reached]:
    """Return the means over seeds at each step that has scores; a seed that ended before keeps its last."""
    if not all(seeds):
        return []
    points, steps = [], sorted({step for seed in seeds for step, _, _ in seed})
    for step in steps:
        known = [[point for point in seed if point[0] <= step] for seed in seeds]
        if all(known):
            values = [seed[-1][2] for seed in known]
            seconds, share = mean(seed[-1][1] for seed in known), step / steps[-1]
            points.append(Reached(seconds, mean(values), min(values), max(values), share))
    return points
