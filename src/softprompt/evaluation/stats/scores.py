"""Holds one method's scores by seed and row, for any metric; every comparison starts from them.

Accuracy is a mean over rows. BLEU, perplexity, macro F1 and correlation are not: they are functions of a
set of rows. For these, each row's share is its jackknife pseudo-value (Quenouille 1956; Tukey 1958), as
radiology does with areas under curves (Dorfman, Berbaum & Metz 1992): the value of all rows, plus N − 1
times the loss when this row is left out. Shares average to the value itself, and their variance gives
its standard error, so that tests and power need no special case. Intervals are bootstrapped from the
metric itself, not from the shares. A statistic that jumps as rows leave (a median) has no such shares.

This file knows no metric by name: it gets numbers or functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from softprompt.errors import SoftPromptError

#: Rows as indices [n], one as often as it was drawn, to the value of each seed [S].
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores `[S, N]` of S seeds on N rows; the mean over rows is the metric's value of each seed.

    Seeds of two methods are not paired with each other; rows are: row i is the same example for all.
    `statistic` is the metric if it is not a mean (see `of_statistic`). `fixed` says that no seed varies this
    method (zero-shot, TF-IDF), so that it has a single row of scores.
    Raises SoftPromptError for another shape, fewer than two rows, or numbers that are not finite.
    """

    name: str
    values: np.ndarray
    statistic: Statistic | None = None
    fixed: bool = False

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
            raise SoftPromptError(
                f"scores of '{self.name}' have shape {list(values.shape)}",
                why="they must be [seeds, rows], with one seed and two rows at least",
            )
        if not np.isfinite(values).all():
            seed, row = np.argwhere(~np.isfinite(values))[0]
            raise SoftPromptError(
                f"the score of '{self.name}' on row {row} with its seed number {seed} is {values[seed, row]}",
                why="means and intervals over rows need finite numbers",
                fix="leave that row out for all methods, or score it",
            )
        if self.fixed and len(values) > 1:
            raise SoftPromptError(f"'{self.name}' is fixed, but has scores of {len(values)} seeds")
        object.__setattr__(self, "values", values)

    @property
    def seeds(self) -> int:
        """Return how many seeds vary it: 0 if it is fixed."""
        return 0 if self.fixed else len(self.values)

    @property
    def rows(self) -> int:
        return self.values.shape[1]


def of_statistic(name: str, statistic: Statistic, rows: int, *, fixed: bool = False) -> Scores:
    """Compute scores by a metric of whole sets of `rows` rows, called once for each row left out.

    `statistic` gets indices of rows `[n]`, repeated as they were drawn, and returns one value a seed `[S]`.
    """
    everything = np.arange(rows)
    left_out = [np.asarray(statistic(np.delete(everything, row)), dtype=np.float64) for row in everything]
    whole = np.asarray(statistic(everything), dtype=np.float64)
    return Scores(name, _shares(whole, np.stack(left_out, axis=1)), statistic, fixed)


def of_sums(
    name: str, stats: np.ndarray, score: Callable[[np.ndarray], float], *, fixed: bool = False
) -> Scores:
    """Compute scores by a metric that is `score` of the sums of statistics `[S, N, k]` over rows.

    All of `softprompt.evaluation.metrics` are of this kind; `score` gets the k sums of one seed.
    """
    stats = np.asarray(stats, dtype=np.float64)
    seeds, rows, k = stats.shape
    flat = stats.transpose(1, 0, 2).reshape(rows, seeds * k)
    total = stats.sum(axis=1)  # [S, k]

    def statistic(drawn: np.ndarray) -> np.ndarray:
        sums = np.bincount(drawn, minlength=rows) @ flat  # [N] @ [N, S · k]
        return np.array([score(of_seed) for of_seed in sums.reshape(seeds, k)])

    left_out = np.array([[score(total[s] - stats[s, row]) for row in range(rows)] for s in range(seeds)])
    whole = np.array([score(of_seed) for of_seed in total])
    return Scores(name, _shares(whole, left_out), statistic, fixed)


def _shares(whole: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Return each row's share [S, N] of the values [S], from the values without that row [S, N]."""
    rows = left_out.shape[1]
    return whole[:, None] + (rows - 1) * (left_out.mean(axis=1, keepdims=True) - left_out)
