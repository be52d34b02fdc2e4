"""The rule by which a comparison and a pilot name a method, from resampled scores, tests and costs.

Of two methods one is *better* where their test shows it. They are *equal* where the interval of their
difference is within the margin. Otherwise these rows do not tell: a difference that was not shown may be
there all the same. The method named is the likeliest best of the resampled scores, or the cheapest of those
that equal it. Cost decides nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...page.numbers import unit
from .schema import PairTest, Standing

_TINY = 1e-12  # of differences that are rounding
Price = tuple[float, ...]  # the smaller is the cheaper


@dataclass(frozen=True)
class Decision:
    """The method that is named, and what is known of it and of the others.

    `likeliest` is the method with the highest probability of being the best, `chosen` the cheapest of its
    `equals` (the likeliest among them). `worse` were shown to be worse than the likeliest, and do not equal
    it. `undecided` are the others: where there are any, the rows do not tell.
    `margin` is in the metric's own numbers. So many `rows` would tell, if the differences stay as they are;
    None where the noise of seeds hides them, or where it is not known.
    """

    chosen: str
    likeliest: str
    equals: list[str]
    worse: list[str]
    undecided: list[str]
    margin: float
    standings: dict[str, Standing]
    rows: float | None

    @property
    def tells(self) -> bool:
        """Return whether the rows tell which methods are best."""
        return not self.undecided

    @property
    def standing(self) -> Standing | None:
        """Return the standing of the chosen method; None where nothing could be resampled."""
        return self.standings.get(self.chosen)


def margin_of(metric: str, points: float, best: float) -> float:
    """Return a margin in the metric's own numbers: hundredths of its range, else of the best score."""
    span = unit(metric).span
    return points / 100 * (span if math.isfinite(span) else abs(best))


def standings(
    draws: Mapping[str, Sequence[float]], *, split: str, metric: str, margin: float, higher_is_better: bool
) -> list[Standing]:
    """Return each method's standing from resampled scores `[R]` by name, drawn together.

    Methods that are equally good in a draw share it.
    """
    best, within, loss = ([0.0] * len(draws) for _ in range(3))
    for values in zip(*draws.values(), strict=True):
        top = max(values) if higher_is_better else min(values)
        behind = [abs(top - value) for value in values]
        first = sum(gap <= _TINY for gap in behind)
        for m, gap in enumerate(behind):
            best[m] += (gap <= _TINY) / first
            within[m] += gap <= margin + _TINY
            loss[m] += gap
    count = len(next(iter(draws.values()), ()))
    columns = zip(draws, best, within, loss, strict=True)
    return [Standing(name, split, metric, *(total / count for total in sums)) for name, *sums in columns]


def is_equal(test: PairTest, margin: float) -> bool:
    """Return whether the interval of the difference is within the margin.

    An interval without width is of scores that were the same in every row, and of an earlier version: it
    does not show how far they may differ in other rows.
    """
    if test.low is None or test.high is None or test.low == test.high:
        return False
    return -margin <= test.low and test.high <= margin


def decide(
    scores: Mapping[str, float],
    tests: Sequence[PairTest],
    standing: Mapping[str, Standing],
    prices: Mapping[str, Price],
    *,
    margin: float,
    higher_is_better: bool,
    ranks: Mapping[str, tuple[int, ...]] | None = None,
) -> Decision:
    """Name one of the methods that have `scores`.

    `tests` are of pairs of methods on one split and metric; others are passed over. Of equals, those of the
    lowest rank (`ranks`) come before the cheaper ones. Without standings the highest score is the likeliest.
    """
    sign = 1 if higher_is_better else -1
    gains = _gains(tests, sign)

    def is_beaten(name: str) -> bool:
        return any((t := gains.get((other, name))) and t[0].significant and t[1] > 0 for other in scores)

    unbeaten = [name for name in scores if not is_beaten(name)] or list(scores)
    known = {name: standing[name].best for name in scores if name in standing}
    likeliest = max(unbeaten, key=lambda name: (known.get(name, 0.0), sign * scores[name]))
    equals, worse, undecided = [likeliest], [], []
    for name in scores:
        if name == likeliest:
            continue
        test, gain = gains.get((likeliest, name), (None, 0.0))
        if test is not None and is_equal(test, margin):
            equals.append(name)
        else:
            (worse if test is not None and test.significant and gain > 0 else undecided).append(name)
    rank = {name: (ranks or {}).get(name, ()) for name in equals}
    safest = [name for name in equals if rank[name] == min(rank.values())]
    chosen = min(safest, key=lambda name: (*prices[name], -sign * scores[name]))
    pairs = [gains.get((likeliest, name), (None, 0.0))[0] for name in undecided]
    standing = {name: standing[name] for name in known}
    return Decision(chosen, likeliest, equals, worse, undecided, margin, standing, _rows(pairs, margin))


def _gains(tests: Sequence[PairTest], sign: int) -> dict[tuple[str, str], tuple[PairTest, float]]:
    """Return the test of each ordered pair, with the first one's gain over the second."""
    gains = {}
    for test in tests:
        gains[test.a, test.b] = test, sign * test.difference
        gains[test.b, test.a] = test, -sign * test.difference
    return gains


def _rows(tests: Sequence[PairTest | None], margin: float) -> float | None:
    """Return how many rows would tell of every pair."""
    needed = [None if test is None else rows_to_tell(test, margin) for test in tests]
    return None if None in needed else max((rows for rows in needed if rows is not None), default=None)


def rows_to_tell(test: PairTest, margin: float) -> float | None:
    """Return how many rows would tell of a pair; files written before know those that show a difference."""
    if test.rows_to_tell is None and abs(test.difference) >= margin / 2:
        return test.rows_needed
    return test.rows_to_tell
