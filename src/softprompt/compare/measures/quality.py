"""Turns the rows of all candidates on a split into scores by seed and row, intervals and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...evaluation.metrics import METRICS, Inputs
from ...evaluation.stats import scores as by_row
from ...evaluation.stats.bootstrap import row_draws
from ...evaluation.stats.joint import joint_draws
from ...evaluation.stats.scores import Scores
from ...evaluation.stats.significance import Summary, compare, summarise
from ...page.numbers import unit
from ..report.decision import margin_of, standings
from ..report.schema import Standing

RESAMPLES = 10_000
Rows = Sequence[Mapping[str, Any]]  # examples of one evaluation, in the split's order


@dataclass(frozen=True)
class CandidateRows:
    """The evaluations that a candidate has on one split, one for each seed; a reference has one."""

    name: str
    seeds: Sequence[Rows]
    is_reference: bool = False


def usable(metric: str, rows: Rows) -> list[int]:
    """Return the numbers of the rows that the metric can use: those answered, or those with its numbers."""
    needs = METRICS[metric].needs
    key = needs if needs in ("nll", "rewards", "ranks") else "prediction"
    return [i for i, row in enumerate(rows) if row.get(key) is not None]


def scores_of(entry: CandidateRows, metric: str) -> Scores | None:
    """Return its scores by seed and row; None if the metric can use fewer than two of its rows."""
    kept = usable(metric, entry.seeds[0])
    if len(kept) < 2 or any(usable(metric, rows) != kept for rows in entry.seeds):
        return None
    stats = stats_of([[rows[i] for i in kept] for rows in entry.seeds], metric)
    if stats.shape[2] == 2 and (stats[:, :, 1] == 1).all() and METRICS[metric].is_mean:
        return Scores(entry.name, stats[:, :, 0], fixed=entry.is_reference)
    return by_row.of_sums(entry.name, stats, METRICS[metric].score, fixed=entry.is_reference)


def stats_of(seeds: Sequence[Rows], metric: str) -> np.ndarray:
    """Compute the metric's statistics [S, N, k] of all seeds at once, so that all count the same labels."""
    if METRICS[metric].of_one_seed and len(seeds) > 1:
        return np.concatenate([stats_of([rows], metric) for rows in seeds])
    every = [row for rows in seeds for row in rows]
    inputs = Inputs(
        [row["prediction"] or "" for row in every],
        [row["references"] for row in every],
        [row["nll"] if row["nll"] is not None else 0.0 for row in every],
        [row["tokens"] for row in every],
        [row.get("rewards") or (0.0, 0.0) for row in every],
        ranks=[(1,) if row.get("ranks") is None else row["ranks"] for row in every],
        query_rows=[row.get("query_rows", len(row.get("ranks") or (1,))) for row in every],
    )
    stats = np.asarray(METRICS[metric].stats(inputs), dtype=np.float64)
    return stats.reshape(len(seeds), len(seeds[0]), -1)


def shares(rows: Rows, metric: str) -> list[float | None]:
    """Return the metric of each single row: 0 or 1 for accuracy, a sentence's score for texts."""
    kept = usable(metric, rows)
    values: list[float | None] = [None] * len(rows)
    if kept:
        # each row alone counts for its query
        stats = stats_of([[{**rows[i], "query_rows": 1} for i in kept]], metric)[0]
        for i, row in zip(kept, stats, strict=True):
            values[i] = float(METRICS[metric].score(row))
    return values


def whole(rows: Rows, metric: str) -> float | None:
    """Return the metric of all rows together that it can use; None if there are none."""
    kept = usable(metric, rows)
    if not kept:
        return None
    return float(METRICS[metric].score(stats_of([[rows[i] for i in kept]], metric)[0].sum(axis=0)))


def summaries(entries: Sequence[CandidateRows], metric: str, resamples: int = 10_000) -> dict[str, Summary]:
    """Return the mean and its interval over rows and seeds, by candidate."""
    of = _alike(entries, metric)
    return {summary.name: summary for summary in (summarise(of, resamples=resamples) if of else [])}


def decisive(
    entries: Sequence[CandidateRows], metric: str, points: float, split: str
) -> tuple[list[dict[str, Any]], list[Standing]]:
    """Test every pair, all corrected together, and resample the scores of all candidates together.

    Returns a dictionary for each pair and the standing of each method that is trained: what decides which
    method is named. `points` is the margin as in a recipe.
    """
    of = _alike(entries, metric)
    if not of:
        return [], []
    trained = {entry.name for entry in entries if not entry.is_reference}
    higher, bounds, span = METRICS[metric].higher_is_better, unit(metric).bounds, unit(metric).span
    rows = row_draws(of, RESAMPLES, 0)
    values = np.clip(joint_draws(of, rows, span=span), *bounds)
    drawn = dict(zip((scores.name for scores in of), values.T, strict=True))
    best = [float(scores.values.mean()) for scores in of if scores.name in trained]
    margin = margin_of(metric, points, (max if higher else min)(best, default=0.0))
    tests = [
        {"split": split, "metric": metric, **asdict(test)}
        | {"chance": _chance(drawn[test.a], drawn[test.b], higher)}
        for test in compare(of, resamples=RESAMPLES, span=span, margin=margin, drawn_rows=rows)
    ]
    methods = {name: values.tolist() for name, values in drawn.items() if name in trained}
    return tests, standings(methods, split=split, metric=metric, margin=margin, higher_is_better=higher)


def _chance(a: np.ndarray, b: np.ndarray, higher_is_better: bool) -> float:
    """Return the probability that a is better than b in draws `[R]` of both; ties count half."""
    ahead = a > b if higher_is_better else a < b
    return float(ahead.mean() + (a == b).mean() / 2)


def _alike(entries: Sequence[CandidateRows], metric: str) -> list[Scores]:
    """Return the scores of the candidates that have the most common number of scored rows."""
    scored = [scores for entry in entries if entry.seeds and (scores := scores_of(entry, metric)) is not None]
    counts = [scores.rows for scores in scored]
    most = max(set(counts), key=lambda n: (counts.count(n), n), default=0)
    return [scores for scores in scored if scores.rows == most]
