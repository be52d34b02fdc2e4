"""A metric has statistics of each example, and a score of their sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Inputs:
    """The inputs that a metric may read; `references` holds one or more texts for each prediction.

    `nll` is each target's summed negative log-likelihood in nats, `tokens` its number of tokens. `rewards`
    are the implicit rewards of a preference row's chosen and rejected answer.
    """

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    nll: Sequence[float] | None = None
    tokens: Sequence[int] | None = None
    rewards: Sequence[tuple[float, float]] | None = None
    divergence: Sequence[float] | None = None  # of each target from a teacher, nats
    agreed: Sequence[float] | None = None  # tokens of each target at which both find the same one likeliest
    ranks: Sequence[Sequence[int]] | None = None  # from 1, of each document that fits a row's query
    #: How many examples share the weight of the example's query; 0: it has none; None: as many as its ranks.
    query_rows: Sequence[int] | None = None


@dataclass(frozen=True)
class Metric:
    """`stats` returns k numbers of each example, `[n, k]`; `score` turns their sum `[k]` into the metric."""

    stats: Callable[[Inputs], np.ndarray]
    score: Callable[[np.ndarray], float]
    higher_is_better: bool = True
    needs: Literal["prediction", "number", "nll", "rewards", "teacher", "ranks"] = "prediction"
    of_one_seed: bool = False  # its statistics are ranks among the examples, so those of one evaluation

    @property
    def is_mean(self) -> bool:
        """Return whether the metric is a mean over examples, of a value and its weight."""
        return self.score is mean_score


def mean(function: Callable[[str, Sequence[str]], float], *, higher_is_better: bool = True) -> Metric:
    """Make a metric of a function of one prediction and its references: its mean over the examples."""

    def stats(inputs: Inputs) -> np.ndarray:
        pairs = zip(inputs.predictions, inputs.references, strict=True)
        return with_ones([float(function(text, references)) for text, references in pairs])

    return Metric(stats, mean_score, higher_is_better)


def mean_score(sums: np.ndarray) -> float:
    """Return the mean of the values; 0 where a resample has drawn none that has a weight."""
    return sums[0] / sums[1] if sums[1] else 0.0


def with_ones(values: Sequence[float]) -> np.ndarray:
    import numpy as np

    return np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1)
