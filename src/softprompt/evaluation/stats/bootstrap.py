"""Draws rows, signs and seeds at random: the distributions behind intervals and p values.

Intervals: a hierarchical bootstrap of crossed factors (Davison & Hinkley 1997, section 3.8; Owen & Eckles
2012). Rows are drawn with replacement, the same for all methods, so that pairs stay together. Three seeds
cannot be drawn in this way: their variance would be a third too small, and no draw would be outside of what
was observed. Their effect is drawn from Student's t with the variance and the degrees of freedom of Welch
(1947) instead.

Tests: if there were no difference, a row's two scores could be exchanged, so the sign of its difference is
drawn (Fisher's randomisation test), and the same draws of seeds are added. Without seeds it is the plain
paired permutation test. docs/measures.md has the error rates of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from softprompt.evaluation.stats.scores import Scores

#: Draws that are held at once are at most this many numbers.
_AT_ONCE = 4_000_000


def row_draws(of: Sequence[Scores], resamples: int, seed: int) -> np.ndarray:
    """Draw rows R times with replacement, and return each method's value `[R, M]`, averaged over seeds."""
    rows = of[0].rows
    means = np.stack([scores.values.mean(axis=0) for scores in of], axis=1)  # [N, M]
    rng, draws = np.random.default_rng((seed, 0)), []
    for count in _chunks(resamples, rows):
        drawn = rng.integers(rows, size=(count, rows))
        cells = drawn + rows * np.arange(count)[:, None]
        counts = np.bincount(cells.ravel(), minlength=count * rows).reshape(count, rows)
        values = counts @ means / rows  # [count, N] @ [N, M]
        for m, scores in enumerate(of):
            if scores.statistic is not None:
                values[:, m] = [np.mean(scores.statistic(sample)) for sample in drawn]
        draws.append(values)
    return np.concatenate(draws)


def seed_draws(variance: np.ndarray, df: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw effects of seeds `[R, P]` of variance `[P]`: Student's t with `df` `[P]` degrees, scaled.

    The method is Bailey's (1994) form of Box and Muller's, which takes any number of degrees.
    """
    rng = np.random.default_rng((seed, 1))
    radius, angle = 1 - rng.random((resamples, 1)), rng.random((resamples, 1))
    t = np.sqrt(df * (radius ** (-2 / df) - 1)) * np.cos(2 * np.pi * angle)
    return t * np.sqrt(variance)


def sign_flips(differences: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw the rows' signs R times, the same for all P, and return means `[R, P]` of differences `[P, N]`."""
    rows = differences.shape[1]
    rng = np.random.default_rng((seed, 2))
    flips = [
        (2.0 * rng.integers(2, size=(count, rows), dtype=np.int8) - 1) @ differences.T / rows
        for count in _chunks(resamples, rows)
    ]
    return np.concatenate(flips)


def p_values(observed: np.ndarray, under_null: np.ndarray) -> np.ndarray:
    """Return two-sided p `[P]` of observations `[P]` in draws `[R, P]`, never 0 (Phipson & Smyth 2010)."""
    # sums of the same numbers in another order may differ in the last digits, and ties count as extreme
    extreme = np.abs(under_null) >= np.abs(observed) * (1 - 1e-9) - 1e-15
    return (extreme.sum(axis=0) + 1) / (len(under_null) + 1)


def _chunks(resamples: int, rows: int) -> Iterator[int]:
    at_once = max(1, _AT_ONCE // rows)
    for start in range(0, resamples, at_once):
        yield min(at_once, resamples - start)
