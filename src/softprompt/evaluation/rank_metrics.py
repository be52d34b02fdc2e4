"""Metrics of ranked documents, and the correlation of ranks.

A query with several documents that fit it is several rows, and so may be one with several negatives, and one
of a reranker, which has a row for each of its documents. Each row has the ranks of all documents that fit,
but one row counts for its query and the others have no weight. So the metrics are means over queries, and a
bootstrap over rows draws queries: copies of a query among the rows would make its intervals too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2
from typing import TYPE_CHECKING

from .label_metrics import numbers_of
from .metric import Inputs, Metric, mean_score

if TYPE_CHECKING:
    import numpy as np


def recall(at: int) -> Metric:
    """Make the metric: the share of the fitting documents that are among the first `at`."""
    return ranked(lambda ranks: sum(rank <= at for rank in ranks) / len(ranks))


def reciprocal_rank(ranks: Sequence[int]) -> float:
    """Return 1 divided by the best rank."""
    return 1 / min(ranks)


def ndcg(at: int) -> Metric:
    """Make the metric: the normalised discounted cumulative gain of the first `at` documents."""

    def value(ranks: Sequence[int]) -> float:
        ideal = sum(1 / log2(1 + rank) for rank in range(1, min(len(ranks), at) + 1))
        return sum(1 / log2(1 + rank) for rank in ranks if rank <= at) / ideal

    return ranked(value)


def ranked(value: Callable[[Sequence[int]], float]) -> Metric:
    """Make a metric: the mean over queries of a function of the ranks of the documents that fit."""

    def stats(inputs: Inputs) -> np.ndarray:
        import numpy as np

        assert inputs.ranks is not None  # `metric_intervals.compute` checks it
        counts = inputs.query_rows or [len(ranks) for ranks in inputs.ranks]
        pairs = zip(inputs.ranks, counts, strict=True)
        # a query that nothing fits has no weight, nor has a row whose query another row counts for
        return np.array([[value(ranks) / n, 1 / n] if ranks and n else [0.0, 0.0] for ranks, n in pairs])

    return Metric(stats, mean_score, needs="ranks")


def spearman_stats(inputs: Inputs) -> np.ndarray:
    """Return `[n, 6]`, as of Pearson's correlation, of the ranks of both numbers; equal ones share a rank."""
    import numpy as np
    from scipy.stats import rankdata

    x, y = (rankdata(numbers) - (len(numbers) + 1) / 2 for numbers in numbers_of(inputs))
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)
