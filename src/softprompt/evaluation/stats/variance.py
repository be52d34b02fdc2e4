"""Estimates variance components: rows, seeds, and seeds that differ from row to row.

The scores of one method are taken as

    x[s, i] = mean + row[i] + seed[s] + both[s, i]

with rows and seeds drawn at random, crossed with each other. The mean's variance is then

    var(row) / N  +  var(seed) / S  +  var(both) / (S · N)

and more rows help with the first part alone. Counting rows only is the "fixed-effect fallacy" (Clark 1973),
common where a method is judged by few training runs (Bouthillier et al. 2021); the estimates below are the
mean squares of the two-way layout (Cornfield & Tukey 1956). In a difference of two methods the rows' part
is that of the differences by row, since both saw the same rows; their seeds are independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.evaluation.stats.scores import Scores

#: A method this many times noisier than the pool keeps its own degrees of freedom.
_NOISIER = 3.0


@dataclass(frozen=True)
class SeedNoise:
    """The variances that one method has: of its seeds' effects, and of the residual by seed and row.

    `df` are the degrees of freedom of the first, of `seeds` seeds or borrowed from other methods.
    """

    seed: float
    both: float
    seeds: int
    df: float


@dataclass(frozen=True)
class Noise:
    """The variances that a difference (or a mean) is made of: of its rows, and of each method with seeds.

    `row` is that of the differences by row as observed, averaged over the seeds.
    """

    row: float
    methods: tuple[SeedNoise, ...]

    def of_rows(self, seeds: int | None = None) -> float:
        """Return the variance of one row's difference, averaged over the seeds there are, or over `seeds`."""
        if seeds is None:
            return self.row
        bare = max(0.0, self.row - sum(m.both / m.seeds for m in self.methods))
        return bare + sum(m.both / seeds for m in self.methods)

    def of_seeds(self, rows: np.ndarray | int, seeds: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the seeds' variance of a mean of `rows` rows, and its degrees of freedom (Welch 1947).

        Degrees are computed from the observed variance of the seeds' means, which has some noise of rows too.
        Both have the shape of `rows`; without seeds they are 0 and 1.
        """
        rows = np.asarray(rows, dtype=np.float64)
        variance = seen = squares = np.zeros(rows.shape)
        for method in self.methods:
            count = seeds or method.seeds
            mean = (method.seed + method.both / rows) / count
            df = method.df * (count - 1) / (method.seeds - 1)
            variance = variance + method.seed / count
            seen, squares = seen + mean, squares + mean**2 / df
        return variance, np.divide(seen**2, squares, out=np.ones(rows.shape), where=squares > 0)


def noise(of: Sequence[Scores], seeds: Sequence[SeedNoise | None]) -> Noise:
    """Return the variances of one method's mean, or of the difference of two methods on the same rows."""
    by_row = of[0].values.mean(axis=0)
    if len(of) == 2:
        by_row = by_row - of[1].values.mean(axis=0)
    return Noise(float(np.var(by_row, ddof=1)), tuple(part for part in seeds if part is not None))


def seed_noise(of: Sequence[Scores]) -> list[SeedNoise | None]:
    """Estimate the variances of each method; None with one seed, which does not show how much seeds differ.

    A variance of three seeds is uncertain, and corrected for many pairs it hides every difference. If three
    methods or more have seeds, each takes the larger of its own variance and their mean, with the mean's
    degrees of freedom (its own if it is much noisier than the others). So three seeds that agree by chance
    make nothing significant, and many methods compensate for few seeds. docs/measures.md has the error rates.
    """
    seen = {m: _mean_squares(scores) for m, scores in enumerate(of) if scores.seeds > 1}
    variances = np.array([of_means for of_means, _ in seen.values()])
    df = np.array([of[m].seeds - 1.0 for m in seen])
    if len(seen) > 2 and variances.any():
        pool = (df * variances).sum() / df.sum()
        pooled_df = (df * variances).sum() ** 2 / (df * variances**2).sum()
        df = np.where(variances > _NOISIER * pool, df, pooled_df)
        variances = np.maximum(variances, pool)
    noises: list[SeedNoise | None] = [None] * len(of)
    for (m, (_, both)), variance, degrees in zip(seen.items(), variances.tolist(), df.tolist(), strict=True):
        # the seeds' means vary by rows too; with one degree of freedom it is not subtracted
        of_rows = both / of[m].rows if degrees >= 2 else 0.0
        noises[m] = SeedNoise(max(0.0, variance - of_rows), both, of[m].seeds, degrees)
    return noises


def _mean_squares(scores: Scores) -> tuple[float, float]:
    """Return the variance of the seeds' means, and of the residual after seed and row."""
    x = scores.values
    left = x - x.mean(axis=0) - x.mean(axis=1, keepdims=True) + x.mean()
    degrees = (x.shape[0] - 1) * (x.shape[1] - 1)
    return float(np.var(x.mean(axis=1), ddof=1)), float((left**2).sum() / degrees)
