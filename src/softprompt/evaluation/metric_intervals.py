"""Compute metrics of predictions, each with its 95 % bootstrap interval.

Every metric is a function of sums of per-example statistics (see `metrics.py`). So the percentile
bootstrap over examples draws how often each example occurs, sums, and scores again: a thousand resamples cost
about as much as one. This file knows texts and numbers, and no models, tokenizers or rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softprompt.errors import SoftPromptError, unknown
from softprompt.evaluation.metrics import METRICS, Inputs, Metric

if TYPE_CHECKING:
    import numpy as np

SHARE_RESAMPLES = 1000
_DRAWS_AT_ONCE = 4_000_000  # numbers that the draws in memory may take, whatever the number of examples


@dataclass(frozen=True)
class Score:
    """A metric's value over `n` examples, with the bounds of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int


def compute(
    names: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    nll: Sequence[float] | None = None,
    tokens: Sequence[int] | None = None,
    rewards: Sequence[tuple[float, float]] | None = None,
    divergence: Sequence[float] | None = None,
    agreed: Sequence[float] | None = None,
    ranks: Sequence[Sequence[int]] | None = None,
    query_rows: Sequence[int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Score]:
    """Compute the metrics called `names` over n examples, each with its bootstrap interval.

    Accuracy, F1, exact match and ROUGE-L are in 0..1, BLEU and chrF in 0..100, perplexity is 1 or more.
    Tag metrics take texts of tags with spaces between them, `mse` and `pearson` texts of numbers.
    Rewards are in nats times beta. All metrics of one call use the same resamples. Where no metric needs a
    text or a number, `predictions` and `references` may be empty. Raises SoftPromptError for unknown names,
    no examples, an example without a reference, or inputs of different lengths.
    """
    import numpy as np

    metrics = {name: _metric(name) for name in names}
    inputs = Inputs(predictions, references, nll, tokens, rewards, divergence, agreed, ranks, query_rows)
    n = _check(metrics, inputs)
    results = {}
    for name, metric in metrics.items():
        stats = np.asarray(metric.stats(inputs), dtype=np.float64)
        # a draw of nothing but rows without weight would have no value
        weighted = stats[stats.any(axis=1)] if metric.needs == "ranks" else stats
        draws = [metric.score(sums) for sums in _resampled_sums(weighted, resamples, seed)]
        value = metric.score(stats.sum(axis=0))
        low, high = np.percentile(draws, [2.5, 97.5], method="nearest") if draws else (value, value)
        results[name] = Score(float(value), float(low), float(high), n)
    return results


def share(hits: Sequence[float], of: Sequence[float] | None = None, seed: int = 0) -> Score:
    """Return Σ hits / Σ of (default: 1 each), with the 95 % percentile bootstrap over rows; `n` is Σ of.

    It is NaN for no rows. If all rows agree, all resamples agree, and the interval is a point.
    """
    import numpy as np

    pairs = np.stack([np.asarray(hits, np.float64), np.ones(len(hits)) if of is None else np.asarray(of)], 1)
    if not len(pairs) or not pairs[:, 1].sum():
        return Score(np.nan, np.nan, np.nan, 0)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)), size=SHARE_RESAMPLES)
    sums = counts @ pairs  # [resamples, 2]
    drawn = sums[sums[:, 1] > 0]
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5], method="nearest")
    total = pairs.sum(0)
    return Score(float(total[0] / total[1]), float(low), float(high), round(total[1]))


def _metric(name: str) -> Metric:
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def _check(metrics: dict[str, Metric], inputs: Inputs) -> int:
    """Return the number of examples; raise where the inputs do not fit the metrics or each other."""
    needs = {metric.needs for metric in metrics.values()}
    lengths = {}
    if needs & {"prediction", "number"}:
        lengths |= {"predictions": len(inputs.predictions), "references": len(inputs.references)}
        bare = [i for i, texts in enumerate(inputs.references) if len(texts) == 0]
        if bare:
            raise SoftPromptError(f"example {bare[0]} has no reference", fix="give each at least one text")
    if "nll" in needs:
        if inputs.nll is None or inputs.tokens is None:
            name = next(name for name, metric in metrics.items() if metric.needs == "nll")
            raise SoftPromptError(f"metric '{name}' needs log-likelihoods", fix="pass nll= and tokens=")
        lengths |= {"nll": len(inputs.nll), "tokens": len(inputs.tokens)}
    if "rewards" in needs:
        if inputs.rewards is None:
            name = next(name for name, metric in metrics.items() if metric.needs == "rewards")
            raise SoftPromptError(
                f"metric '{name}' needs the rewards of two answers",
                fix="pass rewards=, or task.kind=preference",
            )
        lengths["rewards"] = len(inputs.rewards)
    if "ranks" in needs:
        if inputs.ranks is None:
            name = next(name for name, metric in metrics.items() if metric.needs == "ranks")
            raise SoftPromptError(
                f"metric '{name}' needs the ranks of documents", fix="pass ranks=, or task.kind=embedding"
            )
        lengths["ranks"] = len(inputs.ranks)
    if "teacher" in needs:
        if inputs.divergence is None or inputs.agreed is None or inputs.tokens is None:
            name = next(name for name, metric in metrics.items() if metric.needs == "teacher")
            raise SoftPromptError(
                f"metric '{name}' needs a teacher's distributions",
                why="the rows were scored without a teacher",
                fix="task.objective=distil with a teacher's text, or another metric",
            )
        lengths |= {"divergence": len(inputs.divergence), "tokens": len(inputs.tokens)}
    if len(set(lengths.values())) > 1:
        raise SoftPromptError(f"inputs of different lengths: {lengths}")
    if not any(lengths.values()):
        raise SoftPromptError("no examples to score", why=f"metrics {', '.join(metrics)} got none")
    return next(iter(lengths.values()))


def _resampled_sums(stats: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the summed statistics `[k]` of each of `resamples` draws of n examples with replacement."""
    import numpy as np

    rng, n = np.random.default_rng(seed), len(stats)
    if not n:
        return
    at_once = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, resamples, at_once):
        # [draws, n]: how often each example occurs in each draw
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(at_once, resamples - start))
        yield from counts.astype(np.float64) @ stats  # [draws, n] @ [n, k]
