"""Computes which differences a comparison of this size can show, and which size would show a given one.

A difference can be shown if it is so far beyond the point where the test rejects that noise hides it in only
one case of five (80 % power):

    sqrt( r · (z[1 − level / 2] + z[power])² + s · d² )

with r the variance that rows give the difference and s the seeds'; z are quantiles of the normal
distribution, and d the noncentrality at which Student's test with the seeds' degrees of freedom has that
power. It is exact if there is only one source, and close otherwise; docs/measures.md has simulated powers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from math import ceil, log2

import numpy as np
from scipy.special import nctdtrinc, ndtri, stdtrit

from softprompt.evaluation.stats.variance import Noise

#: More rows or seeds than these are as good as none.
MOST_ROWS, MOST_SEEDS = 1_000_000, 100


def detectable(
    noise: Noise, rows: np.ndarray | int, seeds: int | None = None, *, alpha: float = 0.05, power: float = 0.8
) -> np.ndarray:
    """Return the smallest difference that `rows` rows, and `seeds` seeds each, show with probability `power`.

    The default is as many seeds as there are. It has the shape of `rows` and the scores' unit.
    """
    rows = np.asarray(rows, dtype=np.float64)
    of_rows = noise.of_rows(seeds) / rows
    of_seeds, df = noise.of_seeds(rows, seeds)
    z = ndtri(1 - alpha / 2) + ndtri(power)
    d = nctdtrinc(df, 1 - power, stdtrit(df, 1 - alpha / 2))
    return np.sqrt(of_rows * z**2 + np.where(of_seeds > 0, of_seeds * d**2, 0.0))


def fewest_rows(alpha: float) -> int:
    """Return the fewest rows whose signs have enough orders for a p value of alpha."""
    return ceil(1 - log2(alpha))


def smallest_shown(noise: Noise, rows: int, alpha: float, span: float) -> float | None:
    """Return `detectable`, or None if no difference up to `span` can be shown on so many rows.

    It is 0 if neither rows nor seeds vary, which does not say what could be shown.
    """
    smallest = float(detectable(noise, rows, alpha=alpha))
    return None if rows < fewest_rows(alpha) or smallest > span else smallest


def rows_needed(noise: Noise, difference: float, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Return how many rows could show `difference`, or None if the seeds' noise alone hides it."""

    def shows(rows: int) -> bool:
        return bool(detectable(noise, rows, alpha=alpha, power=power) <= abs(difference))

    return _fewest(range(max(10, fewest_rows(alpha)), MOST_ROWS + 1), shows) if difference else None


def seeds_needed(
    noise: Noise, rows: int, difference: float, *, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Return how many seeds could show `difference` on these rows, or None if the rows' noise hides it.

    It is also None if there was a single seed each, so that the seeds' variance is not known.
    """

    def shows(seeds: int) -> bool:
        return bool(detectable(noise, rows, seeds, alpha=alpha, power=power) <= abs(difference))

    return _fewest(range(2, MOST_SEEDS + 1), shows) if difference and noise.methods else None


def _fewest(counts: range, shows: Callable[[int], bool]) -> int | None:
    first = bisect_left(counts, True, key=shows)
    return counts[first] if first < len(counts) else None
