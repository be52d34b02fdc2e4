"""Compares methods in pairs: difference, interval, corrected p value, and the smallest difference shown.

A verdict accounts for rows and seeds: another draw of the test rows, and another training run, should give
the same. With one seed each it holds for these trained prompts only. docs/measures.md explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from softprompt.errors import SoftPromptError
from softprompt.evaluation.stats import bootstrap, rare, simultaneous
from softprompt.evaluation.stats.power import rows_needed, seeds_needed, smallest_shown
from softprompt.evaluation.stats.scores import Scores
from softprompt.evaluation.stats.variance import Noise, noise, seed_noise


@dataclass(frozen=True)
class Comparison:
    """`difference` is a − b in the metric's unit, with its interval.

    `p_adjusted`, `significant` and the interval are corrected for all pairs compared together: the interval
    leaves out 0 exactly if the difference is significant, and `level` is its own confidence (0.95 of one
    pair). `alone_low` and `alone_high` are the 95 % interval of this pair alone. `n_seeds` is the smaller
    number of seeds of the two: 0 if no seed varies either.

    `detectable` is the smallest difference that so many rows and seeds show at 80 % power at the strictest
    level of the correction. It is None if the two scored the same on every row, which shows no noise, and
    if it would be larger than the metric can have: `shows_any` is then False, unless this one was shown.
    `rows_needed` or `seeds_needed` alone would show a difference of the size observed; None: no number would.
    With `rows_to_tell` rows, and the difference as observed, the interval would leave out 0 or be within the
    margin, at 80 % power.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    level: float
    alone_low: float
    alone_high: float
    p: float
    p_adjusted: float
    significant: bool
    n_rows: int
    n_seeds: int
    detectable: float | None
    shows_any: bool
    rows_needed: int | None
    seeds_needed: int | None
    rows_to_tell: int | None


@dataclass(frozen=True)
class Summary:
    """The mean that a method has over rows and seeds with its 95 % interval, and the spread of its seeds.

    `seed_sd` is the standard deviation of the seeds' values (ddof 1), None with fewer than two.
    """

    name: str
    mean: float
    seed_sd: float | None
    low: float
    high: float
    n_rows: int
    n_seeds: int


def compare(
    of: Sequence[Scores],
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    alpha: float = 0.05,
    resamples: int = 10_000,
    seed: int = 0,
    span: float = np.inf,
    margin: float = 0.0,
    drawn_rows: np.ndarray | None = None,
) -> list[Comparison]:
    """Compare every pair of the methods, or the `pairs` of their indices, corrected together.

    `span` is the largest difference that two scores can have: 1 of shares, infinite of perplexities.
    Methods whose difference is within `margin`, in the scores' unit, count as equal. An interval that holds 0
    is widened where few rows differ (`rare`). `drawn_rows` `[R, M]` are the values of `bootstrap.row_draws`,
    if they are there already. Raises SoftPromptError for methods with different numbers of
    rows.
    """
    _same_rows(of)
    pairs = list(combinations(range(len(of)), 2)) if pairs is None else list(pairs)
    if not pairs:
        return []
    resamples = max(resamples, round(2 * len(pairs) / alpha))  # a p value can be below alpha / pairs
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    by_row = np.stack([scores.values.mean(axis=0) for scores in of])  # [M, N]
    difference = (by_row[a] - by_row[b]).mean(axis=1)  # [P]
    of_seeds = seed_noise(of)
    noises = [noise((of[i], of[j]), (of_seeds[i], of_seeds[j])) for i, j in pairs]
    seeds = _seeds(noises, of[0].rows, resamples, seed)  # [R, P]
    # the last column, of a 1 in every row, holds the means of the signs themselves
    drawn = np.vstack([by_row[a] - by_row[b], np.ones(of[0].rows)])
    flips = bootstrap.sign_flips(drawn, resamples, seed)
    p = bootstrap.p_values(difference, flips[:, :-1] + seeds)
    adjusted = holm(p)
    level = simultaneous.levels(p, adjusted, alpha)
    low, high = simultaneous.intervals(difference, flips[:, :-1], flips[:, -1], seeds, level, span)
    for k in np.flatnonzero(adjusted > alpha):
        if (bounds := rare.widest(drawn[k], span, level[k])) is not None:
            low[k], high[k] = min(low[k], bounds[0]), max(high[k], bounds[1])
    values = drawn_rows
    if values is None or len(values) != resamples:
        values = bootstrap.row_draws(of, resamples, seed)
    alone = np.percentile(values[:, a] - values[:, b] + seeds, [2.5, 97.5], axis=0)
    strictest = alpha / len(pairs)
    smallest = [smallest_shown(item, of[0].rows, strictest, span) for item in noises]
    return [
        Comparison(
            a=of[i].name,
            b=of[j].name,
            difference=float(difference[k]),
            low=float(low[k]),
            high=float(high[k]),
            level=float(1 - level[k]),
            alone_low=float(alone[0, k]),
            alone_high=float(alone[1, k]),
            p=float(p[k]),
            p_adjusted=float(adjusted[k]),
            significant=bool(adjusted[k] <= alpha),
            n_rows=of[i].rows,
            n_seeds=min((s.seeds for s in (of[i], of[j]) if not s.fixed), default=0),
            detectable=smallest[k] or None,
            shows_any=smallest[k] is not None or bool(adjusted[k] <= alpha),
            rows_needed=rows_needed(noises[k], float(difference[k]), alpha=strictest),
            seeds_needed=seeds_needed(noises[k], of[i].rows, float(difference[k]), alpha=strictest),
            rows_to_tell=_rows_to_tell(noises[k], float(difference[k]), margin, strictest, span),
        )
        for k, (i, j) in enumerate(pairs)
    ]


def summarise(of: Sequence[Scores], *, resamples: int = 10_000, seed: int = 0) -> list[Summary]:
    """Return the summary of each method.

    Raises SoftPromptError for methods with different numbers of rows.
    """
    _same_rows(of)
    rows = of[0].rows
    noises = [noise((scores,), (seeds,)) for scores, seeds in zip(of, seed_noise(of), strict=True)]
    seeds = _seeds(noises, rows, resamples, seed)
    low, high = np.percentile(bootstrap.row_draws(of, resamples, seed) + seeds, [2.5, 97.5], axis=0)
    summaries = []
    for m, scores in enumerate(of):
        by_seed = scores.values.mean(axis=1)
        sd = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
        mean, bounds = float(by_seed.mean()), (float(low[m]), float(high[m]))
        summaries.append(Summary(scores.name, mean, sd, *bounds, n_rows=rows, n_seeds=scores.seeds))
    return summaries


def holm(p: np.ndarray) -> np.ndarray:
    """Return adjusted p values that bound the chance of any false claim (Holm 1979)."""
    p = np.asarray(p, dtype=np.float64)
    order, m = np.argsort(p), len(p)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(1, np.maximum.accumulate((m - np.arange(m)) * p[order]))
    return adjusted


def _rows_to_tell(of: Noise, difference: float, margin: float, alpha: float, span: float) -> int | None:
    """Return with how many rows the interval leaves out 0 or is within the margin; None if with no number."""
    rows = rows_needed(of, max(abs(difference), margin - abs(difference)), alpha=alpha)
    if rows is None or abs(difference) >= margin / 2 or not np.isfinite(span):
        return rows
    return max(rows, rare.fewest(margin - abs(difference), span, alpha))


def _seeds(noises: Sequence[Noise], rows: int, resamples: int, seed: int) -> np.ndarray:
    variance, df = (np.array(x) for x in zip(*(n.of_seeds(rows) for n in noises), strict=True))
    return bootstrap.seed_draws(variance, df, resamples, seed)


def _same_rows(of: Sequence[Scores]) -> None:
    counts = {scores.name: scores.rows for scores in of}
    if len(set(counts.values())) > 1:
        raise SoftPromptError(
            f"methods were scored on different numbers of rows: {counts}",
            why="they are compared row by row",
            fix="score all on the same rows, in the same order",
        )
    if not of:
        raise SoftPromptError("no methods to compare")
