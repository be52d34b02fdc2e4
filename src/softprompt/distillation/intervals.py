"""Scores of the ways to answer, over requests and seeds: means, intervals and tests, as in a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..evaluation.metric import Inputs
from ..evaluation.metrics import METRICS
from ..evaluation.records import Record
from ..evaluation.stats.scores import Scores, of_sums
from ..evaluation.stats.significance import compare, summarise
from ..page.numbers import unit

RESAMPLES, DRAWS = 1000, 2000  # of an interval, of a test

#: The records of one way, one list for each seed; one list where no seed varies it.
Seeds = Sequence[Sequence[Record]]


def table(ways: Mapping[str, Seeds], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the metrics of each way as an evaluation's JSON: means over seeds, 95 % intervals, rows.

    An interval is over requests and, of several seeds, over seeds too; a single request has none. `seeds`
    has the metrics of each seed.
    """
    results: dict[str, dict[str, Any]] = {}
    for name, seeds in ways.items():
        n = len(seeds[0])
        way: dict[str, Any] = {"metrics": {}, "intervals": {}, "rows": {}, "n": n}
        by_seed: list[dict[str, float]] = [{} for _ in seeds]
        for metric in metrics:
            stats = _stats(seeds, metric)
            values = [float(METRICS[metric].score(sums)) for sums in stats.sum(axis=1)]
            for figures, value in zip(by_seed, values, strict=True):
                figures[metric] = value
            way["metrics"][metric], way["rows"][metric] = float(np.mean(values)), n
            if n > 1:
                (over,) = summarise([_scores(name, stats, metric)], resamples=RESAMPLES)
                way["intervals"][metric] = [over.low, over.high]
        if len(seeds) > 1:
            way["seeds"] = by_seed
        results[name] = way
    return results


def share_kept(vectors: Seeds, none: Sequence[Record]) -> tuple[float, float, float]:
    """Return 1 - KL with the vectors / KL without the text, and its 95 % interval over requests and seeds.

    Both are sums over the same tokens. Requests are drawn together: the interval is that of the ratio.
    """
    without = [record.divergence for record in none]
    stats = np.array(
        [[[r.divergence, w] for r, w in zip(records, without, strict=True)] for records in vectors]
    )
    scores = of_sums("share", stats, lambda sums: float(1 - sums[0] / sums[1]))
    (over,) = summarise([scores], resamples=RESAMPLES)
    values = [1 - sums[0] / sums[1] for sums in stats.sum(axis=1)]
    return float(np.mean(values)), over.low, over.high


def tests(ways: Mapping[str, Seeds], first: str, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Test `first` against each of the other ways; the tests of a metric are corrected together (Holm)."""
    names = [first, *(name for name in ways if name != first)]
    results = []
    for metric in metrics:
        scores = [_scores(name, _stats(ways[name], metric), metric) for name in names]
        pairs = [(0, i) for i in range(1, len(names))]
        for test in compare(scores, pairs=pairs, resamples=DRAWS, span=unit(metric).span):
            facts = asdict(test)
            infinite = [k for k, v in facts.items() if isinstance(v, float) and not math.isfinite(v)]
            higher = METRICS[metric].higher_is_better
            results.append({"metric": metric, **facts, **dict.fromkeys(infinite), "higher_is_better": higher})
    return results


def _scores(name: str, stats: np.ndarray, metric: str) -> Scores:
    fixed = len(stats) == 1
    if stats.shape[2] == 2 and (stats[:, :, 1] == 1).all() and METRICS[metric].is_mean:
        return Scores(name, stats[:, :, 0], fixed=fixed)
    return of_sums(name, stats, METRICS[metric].score, fixed=fixed)


def _stats(seeds: Seeds, metric: str) -> np.ndarray:
    """Compute the metric's statistics [S, N, k] of all seeds at once, so that all have the same columns."""
    every = [record for records in seeds for record in records]
    inputs = Inputs(
        [r.prediction for r in every],
        [r.references for r in every],
        [r.nll for r in every],
        [r.tokens for r in every],
        divergence=[r.divergence or 0.0 for r in every],
        agreed=[r.agreed or 0.0 for r in every],
    )
    stats = np.asarray(METRICS[metric].stats(inputs), dtype=np.float64)
    return stats.reshape(len(seeds), len(seeds[0]), -1)
