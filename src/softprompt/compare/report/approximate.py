"""Standings of files that have none: scores are drawn from the intervals of the pairs' differences.

The variances of all differences give those of the methods together, and normal numbers are drawn. Rows and
seeds themselves are not in these files, so the probabilities are approximate.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from .schema import PairTest

_DRAWS = 4_000
_Z95 = 1.959964


def draws(names: Sequence[str], tests: Sequence[PairTest]) -> dict[str, list[float]]:
    """Draw each method's score less the first one's, `[R]`; nothing if a pair has no interval."""
    difference, variance = {}, {}
    for test in tests:
        low, high = _bounds(test)
        if low is not None and high is not None:
            difference[test.a, test.b], difference[test.b, test.a] = test.difference, -test.difference
            variance[test.a, test.b] = variance[test.b, test.a] = ((high - low) / (2 * _Z95)) ** 2
    if len(names) < 2 or any((a, b) not in variance for a in names for b in names if a != b):
        return {}
    first, others = names[0], names[1:]
    # of differences from the first: 2 cov(i, j) = var(i) + var(j) - var(i - j)
    covariance = [
        [(variance[i, first] + variance[j, first] - variance.get((i, j), 0.0)) / 2 for j in others]
        for i in others
    ]
    root, rng, drawn = _root(covariance), random.Random(0), {name: [] for name in names}
    for _ in range(_DRAWS):
        normal = [rng.gauss(0, 1) for _ in others]
        drawn[first].append(0.0)
        for name, row in zip(others, root, strict=True):
            noise = sum(x * z for x, z in zip(row, normal, strict=False))
            drawn[name].append(difference[name, first] + noise)
    return drawn


def _root(covariance: list[list[float]]) -> list[list[float]]:
    """Return the lower triangle whose product with its transpose is the covariance (Cholesky).

    Seeds' parts may not fit together exactly: a variance that would be negative is 0.
    """
    root: list[list[float]] = []
    for i, row in enumerate(covariance):
        line: list[float] = []
        for j in range(i + 1):
            before = line if j == i else root[j]
            rest = row[j] - sum(x * y for x, y in zip(line, before, strict=False))
            if j == i:
                line.append(math.sqrt(max(0.0, rest)))
            else:
                line.append(rest / root[j][j] if root[j][j] > 0 else 0.0)
        root.append(line)
    return root


def _bounds(test: PairTest) -> tuple[float | None, float | None]:
    """Return the 95 % interval of the pair alone."""
    if test.alone_low is not None and test.alone_high is not None:
        return test.alone_low, test.alone_high
    return (test.low, test.high) if test.level is None else (None, None)
