"""Scores of predictions with their 95 % intervals.

Every metric here is a function of sums of per-example statistics: BLEU of n-gram counts, macro F1 of
counts by label, perplexity of log-probabilities and tokens. So the percentile bootstrap over examples
draws how often each example occurs, sums, and scores again: a thousand resamples cost about as much as
one. The statistics of BLEU and chrF are `sacrebleu`'s and those of ROUGE-L `rouge-score`'s; the value is
what these libraries give for the corpus (tests hold it, and macro F1 against scikit-learn).

This file knows nothing of models, tokenizers or rows: it gets texts and numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

from softprompt.errors import SoftPromptError, unknown

if TYPE_CHECKING:
    import numpy as np

#: Draws that are held at once are at most this many numbers, whatever the number of examples.
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Score:
    """A metric's value over `n` examples, with the bounds of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Inputs:
    """What a metric may use; `references` holds one or more texts for each prediction.

    `nll` is each target's summed negative log-likelihood in nats, `tokens` its number of tokens.
    """

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    nll: Sequence[float] | None = None
    tokens: Sequence[int] | None = None


@dataclass(frozen=True)
class Metric:
    """`stats` gives one row of numbers an example, `[n, k]`; `score` the metric of their sum, `[k]`."""

    stats: Callable[[Inputs], np.ndarray]
    score: Callable[[np.ndarray], float]
    higher_is_better: bool = True
    needs: Literal["prediction", "number", "nll"] = "prediction"

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean over examples: its two statistics are a value and its weight."""
        return self.score is _mean


def compute(
    names: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    nll: Sequence[float] | None = None,
    tokens: Sequence[int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Score]:
    """The metrics called `names` over n examples, each with its bootstrap interval.

    Accuracy, F1, exact match and ROUGE-L lie in 0..1, BLEU and chrF in 0..100, perplexity from 1 up.
    Tag metrics take texts of tags parted by spaces, `mse` and `pearson` texts of numbers.
    All metrics of one call see the same resamples. With only metrics that need "nll", `predictions`
    and `references` may be empty. Raises SoftPromptError for unknown names, no examples, an example
    without a reference, or inputs of different lengths.
    """
    import numpy as np

    metrics = {name: _metric(name) for name in names}
    inputs = Inputs(predictions, references, nll, tokens)
    n = _check(metrics, inputs)
    results = {}
    for name, metric in metrics.items():
        stats = np.asarray(metric.stats(inputs), dtype=np.float64)
        draws = [metric.score(sums) for sums in _resampled_sums(stats, resamples, seed)]
        value = metric.score(stats.sum(axis=0))
        low, high = np.percentile(draws, [2.5, 97.5], method="nearest") if draws else (value, value)
        results[name] = Score(float(value), float(low), float(high), n)
    return results


def default_metrics(task_kind: str) -> list[str]:
    """Metrics of a task that names none. The first is the one that training watches on the dev rows."""
    defaults = {
        "generation": ["perplexity", "chrf", "rouge_l"],  # perplexity first: it needs no generation
        "classification": ["accuracy", "macro_f1"],
        "choice": ["accuracy"],
        "token-classification": ["tag_accuracy", "tag_macro_f1"],
        "regression": ["mse", "pearson"],
    }
    if task_kind not in defaults:
        raise unknown("task kind", task_kind, defaults)
    return defaults[task_kind]


def _metric(name: str) -> Metric:
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def _check(metrics: dict[str, Metric], inputs: Inputs) -> int:
    """The number of examples; an error where the inputs do not fit the metrics or each other."""
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
    if len(set(lengths.values())) > 1:
        raise SoftPromptError(f"inputs of different lengths: {lengths}")
    if not any(lengths.values()):
        raise SoftPromptError("no examples to score", why=f"metrics {', '.join(metrics)} got none")
    return next(iter(lengths.values()))


def _resampled_sums(stats: np.ndarray, resamples: int, seed: int):
    """Yields the summed statistics `[k]` of each of `resamples` draws of n examples with replacement."""
    import numpy as np

    rng, n = np.random.default_rng(seed), len(stats)
    at_once = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, resamples, at_once):
        # [draws, n]: how often each example occurs in each draw
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(at_once, resamples - start))
        yield from counts.astype(np.float64) @ stats  # [draws, n] @ [n, k]


# --- the metrics --------------------------------------------------------------------------------


def _mean(sums: np.ndarray) -> float:
    """For statistics (value, 1)."""
    return sums[0] / sums[1]


def _with_ones(values: Sequence[float]) -> np.ndarray:
    import numpy as np

    return np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1)


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def _accuracy_stats(inputs: Inputs) -> np.ndarray:
    pairs = zip(inputs.predictions, inputs.references, strict=True)
    return _with_ones([text.strip() in {ref.strip() for ref in refs} for text, refs in pairs])


def _exact_stats(inputs: Inputs) -> np.ndarray:
    pairs = zip(inputs.predictions, inputs.references, strict=True)
    return _with_ones([_normal(text) in {_normal(ref) for ref in refs} for text, refs in pairs])


def _f1_stats(inputs: Inputs) -> np.ndarray:
    """`[n, 3 * labels]`: right, predicted, true. Of several references the predicted one counts."""
    predicted = [text.strip() for text in inputs.predictions]
    true = []
    for text, refs in zip(predicted, inputs.references, strict=True):
        stripped = [ref.strip() for ref in refs]
        true.append(text if text in stripped else stripped[0])
    return _label_counts([[text] for text in predicted], [[text] for text in true])


def _label_counts(predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> np.ndarray:
    """`[n, 3 * labels]` of n rows of labels: how often each is right, predicted, true."""
    import numpy as np

    names = {label for rows in (predicted, true) for row in rows for label in row}
    labels = {label: i for i, label in enumerate(sorted(names))}
    stats = np.zeros((len(true), 3, len(labels)))
    for i, (guesses, truths) in enumerate(zip(predicted, true, strict=True)):
        for guess, truth in zip(guesses, truths, strict=True):
            stats[i, 0, labels[truth]] += guess == truth
            stats[i, 1, labels[guess]] += 1
            stats[i, 2, labels[truth]] += 1
    return stats.reshape(len(true), -1)


def _f1_score(sums: np.ndarray) -> float:
    """Mean of the labels' F1 over the labels that occur, as scikit-learn's `f1_score(average="macro")`."""
    right, predicted, true = sums.reshape(3, -1)
    occurs = predicted + true > 0
    return float((2 * right[occurs] / (predicted + true)[occurs]).mean())


def _tags(inputs: Inputs) -> tuple[list[list[str]], list[list[str]]]:
    """Predicted and true tags of each row, which are parted by spaces in its texts."""
    true = [refs[0].split() for refs in inputs.references]
    guesses = (text.split() for text in inputs.predictions)
    # a word without a predicted tag counts as wrong, a tag without a word not at all
    return [[*row, *[""] * len(tags)][: len(tags)] for row, tags in zip(guesses, true, strict=True)], true


def _tag_accuracy_stats(inputs: Inputs) -> np.ndarray:
    """`[n, 2]`: right tags, and all, so that a row counts by its words."""
    import numpy as np

    pairs = list(zip(*_tags(inputs), strict=True))
    right = [sum(map(str.__eq__, guesses, truths)) for guesses, truths in pairs]
    return np.array([right, [len(truths) for _, truths in pairs]], dtype=np.float64).T


def _numbers(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true numbers [n]."""
    import numpy as np

    try:
        true = [float(refs[0]) for refs in inputs.references]
        return np.array([float(text) for text in inputs.predictions]), np.array(true)
    except ValueError as error:
        raise SoftPromptError(
            f"this metric needs numbers: {error}", fix="mend task.metrics, or task.kind=regression"
        ) from None


def _mse_stats(inputs: Inputs) -> np.ndarray:
    predicted, true = _numbers(inputs)
    return _with_ones(((predicted - true) ** 2).tolist())


def _pearson_stats(inputs: Inputs) -> np.ndarray:
    """`[n, 6]`: 1, x, y, x², y², xy of the predicted number x and the true y."""
    import numpy as np

    x, y = _numbers(inputs)
    # about the true mean, which changes no correlation, lest large numbers drown their differences
    x, y = x - y.mean(), y - y.mean()
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)


def _pearson_score(sums: np.ndarray) -> float:
    """Correlation; 0 where one side never changes."""
    n, x, y, xx, yy, xy = sums
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    if spread_x <= 1e-12 * n * xx or spread_y <= 1e-12 * n * yy:
        return 0.0
    return float((n * xy - x * y) / (spread_x * spread_y) ** 0.5)


def _sacrebleu(kind: Literal["BLEU", "CHRF"]) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    # `force` only silences the advice on tokenized text.
    return BLEU(force=True) if kind == "BLEU" else CHRF()


def _sacrebleu_metric(kind: Literal["BLEU", "CHRF"]) -> Metric:
    def stats(inputs: Inputs) -> np.ndarray:
        # sacrebleu wants one stream a reference, with None where an example has fewer.
        streams = list(zip_longest(*inputs.references))
        return _sacrebleu(kind)._extract_corpus_statistics(list(inputs.predictions), streams)

    def score(sums: np.ndarray) -> float:
        return _sacrebleu(kind)._compute_score_from_stats([round(number) for number in sums]).score

    return Metric(stats, score)


def _rouge_stats(inputs: Inputs) -> np.ndarray:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(inputs.predictions, inputs.references, strict=True)
    return _with_ones([scorer.score_multi(list(refs), text)["rougeL"].fmeasure for text, refs in pairs])


def _perplexity_stats(inputs: Inputs) -> np.ndarray:
    import numpy as np

    assert inputs.nll is not None and inputs.tokens is not None  # `_check` has seen to it
    return np.stack([np.asarray(inputs.nll, np.float64), np.asarray(inputs.tokens, np.float64)], axis=1)


def _perplexity_score(sums: np.ndarray) -> float:
    import numpy as np

    with np.errstate(over="ignore"):
        return float(np.exp(sums[0] / sums[1]))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(_accuracy_stats, _mean),
    "macro_f1": Metric(_f1_stats, _f1_score),
    "tag_accuracy": Metric(_tag_accuracy_stats, _mean),
    "tag_macro_f1": Metric(lambda inputs: _label_counts(*_tags(inputs)), _f1_score),
    "mse": Metric(_mse_stats, _mean, higher_is_better=False, needs="number"),
    "pearson": Metric(_pearson_stats, _pearson_score, needs="number"),
    "exact_match": Metric(_exact_stats, _mean),
    "bleu": _sacrebleu_metric("BLEU"),
    "chrf": _sacrebleu_metric("CHRF"),
    "rouge_l": Metric(_rouge_stats, _mean),
    "perplexity": Metric(_perplexity_stats, _perplexity_score, higher_is_better=False, needs="nll"),
}
