"""Each metric is defined by per-example statistics and the score of their sum.

BLEU sums n-gram counts, macro F1 counts by label, perplexity log-probabilities and tokens. The statistics of
BLEU and chrF are `sacrebleu`'s and those of ROUGE-L `rouge-score`'s; the value is what these libraries give
for the corpus. A new metric is one function and one line of `METRICS`. Other packages add metrics by entry
points of the group `softprompt.metrics` (`own_metrics`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

from softprompt._system.plugins import Registry
from softprompt.errors import SoftPromptError, unknown

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


@dataclass(frozen=True)
class Metric:
    """`stats` returns k numbers of each example, `[n, k]`; `score` turns their sum `[k]` into the metric."""

    stats: Callable[[Inputs], np.ndarray]
    score: Callable[[np.ndarray], float]
    higher_is_better: bool = True
    needs: Literal["prediction", "number", "nll", "rewards", "teacher"] = "prediction"

    @property
    def is_mean(self) -> bool:
        """Return whether the metric is a mean over examples, of a value and its weight."""
        return self.score is _mean


def mean(function: Callable[[str, Sequence[str]], float], *, higher_is_better: bool = True) -> Metric:
    """Make a metric of a function of one prediction and its references: its mean over the examples."""

    def stats(inputs: Inputs) -> np.ndarray:
        pairs = zip(inputs.predictions, inputs.references, strict=True)
        return _with_ones([float(function(text, references)) for text, references in pairs])

    return Metric(stats, _mean, higher_is_better)


def _mean(sums: np.ndarray) -> float:
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
    """Return `[n, 3 * labels]`: right, predicted, true. Of several references, the predicted one counts."""
    predicted = [text.strip() for text in inputs.predictions]
    true = []
    for text, refs in zip(predicted, inputs.references, strict=True):
        stripped = [ref.strip() for ref in refs]
        true.append(text if text in stripped else stripped[0])
    return _label_counts([[text] for text in predicted], [[text] for text in true])


def _label_counts(predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> np.ndarray:
    """Return `[n, 3 * labels]` for n rows of labels: how often each is right, predicted, true."""
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
    """Return the mean F1 of the labels that occur, as scikit-learn's `f1_score(average="macro")` does."""
    right, predicted, true = sums.reshape(3, -1)
    occurs = predicted + true > 0
    return float((2 * right[occurs] / (predicted + true)[occurs]).mean())


def _tags(inputs: Inputs) -> tuple[list[list[str]], list[list[str]]]:
    """Return the predicted and the true tags of each row; its texts have spaces between them."""
    true = [refs[0].split() for refs in inputs.references]
    guesses = (text.split() for text in inputs.predictions)
    # a word without a predicted tag counts as wrong, a tag without a word not at all
    return [[*row, *[""] * len(tags)][: len(tags)] for row, tags in zip(guesses, true, strict=True)], true


def _tag_accuracy_stats(inputs: Inputs) -> np.ndarray:
    """Return `[n, 2]`: right tags and all tags, so that a row counts by its words."""
    import numpy as np

    pairs = list(zip(*_tags(inputs), strict=True))
    right = [sum(map(str.__eq__, guesses, truths)) for guesses, truths in pairs]
    return np.array([right, [len(truths) for _, truths in pairs]], dtype=np.float64).T


def _numbers(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    try:
        true = [float(refs[0]) for refs in inputs.references]
        return np.array([float(text) for text in inputs.predictions]), np.array(true)
    except ValueError as error:
        raise SoftPromptError(
            f"this metric needs numbers: {error}", fix="change task.metrics, or set task.kind=regression"
        ) from None


def _mse_stats(inputs: Inputs) -> np.ndarray:
    predicted, true = _numbers(inputs)
    return _with_ones(((predicted - true) ** 2).tolist())


def _pearson_stats(inputs: Inputs) -> np.ndarray:
    """Return `[n, 6]`: 1, x, y, x², y², xy of the predicted number x and the true number y."""
    import numpy as np

    x, y = _numbers(inputs)
    # Subtracting the true mean changes no correlation, and keeps the differences of large numbers.
    x, y = x - y.mean(), y - y.mean()
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)


def _pearson_score(sums: np.ndarray) -> float:
    """Return the correlation; 0 where one side never changes."""
    n, x, y, xx, yy, xy = sums
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    if spread_x <= 1e-12 * n * xx or spread_y <= 1e-12 * n * yy:
        return 0.0
    return float((n * xy - x * y) / (spread_x * spread_y) ** 0.5)


def _sacrebleu(kind: Literal["BLEU", "CHRF"]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return sacrebleu's functions: (statistics of each example, score of summed statistics).

    Both are private in sacrebleu 2; its public functions give only the score of a whole corpus.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    # `force` only silences the advice on tokenized text.
    metric = BLEU(force=True) if kind == "BLEU" else CHRF()
    return metric._extract_corpus_statistics, metric._compute_score_from_stats


def _sacrebleu_metric(kind: Literal["BLEU", "CHRF"]) -> Metric:
    def stats(inputs: Inputs) -> np.ndarray:
        # sacrebleu wants one list for each reference number, with None where an example has fewer.
        streams = list(zip_longest(*inputs.references))
        return _sacrebleu(kind)[0](list(inputs.predictions), streams)

    def score(sums: np.ndarray) -> float:
        return _sacrebleu(kind)[1]([round(number) for number in sums]).score

    return Metric(stats, score)


def _rouge_stats(inputs: Inputs) -> np.ndarray:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(inputs.predictions, inputs.references, strict=True)
    return _with_ones([scorer.score_multi(list(refs), text)["rougeL"].fmeasure for text, refs in pairs])


def _perplexity_stats(inputs: Inputs) -> np.ndarray:
    import numpy as np

    assert inputs.nll is not None and inputs.tokens is not None  # `metric_intervals.compute` checks it
    return np.stack([np.asarray(inputs.nll, np.float64), np.asarray(inputs.tokens, np.float64)], axis=1)


def _perplexity_score(sums: np.ndarray) -> float:
    import numpy as np

    with np.errstate(over="ignore"):
        return float(np.exp(sums[0] / sums[1]))


def _rewards(value: Callable[[float, float], float]) -> Metric:
    """Make a metric: the mean of a function of a row's rewards, of the chosen and the rejected answer."""

    def stats(inputs: Inputs) -> np.ndarray:
        assert inputs.rewards is not None  # `metric_intervals.compute` checks it
        return _with_ones([value(chosen, rejected) for chosen, rejected in inputs.rewards])

    return Metric(stats, _mean, needs="rewards")


def _by_token(name: Literal["divergence", "agreed"]) -> Callable[[Inputs], np.ndarray]:
    def stats(inputs: Inputs) -> np.ndarray:
        import numpy as np

        sums = getattr(inputs, name)
        assert sums is not None and inputs.tokens is not None  # `metric_intervals.compute` checks it
        return np.stack([np.asarray(sums, np.float64), np.asarray(inputs.tokens, np.float64)], axis=1)

    return stats


def _metric_of(name: str, target: Any) -> Metric:
    from .own_metrics import metric_of

    return metric_of(name, target)


_LIBRARY: dict[str, Metric] = {
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
    "preference_accuracy": _rewards(lambda chosen, rejected: chosen > rejected),
    "reward_margin": _rewards(lambda chosen, rejected: chosen - rejected),
    "chosen_reward": _rewards(lambda chosen, rejected: chosen),
    "rejected_reward": _rewards(lambda chosen, rejected: rejected),
    "kl": Metric(_by_token("divergence"), _mean, higher_is_better=False, needs="teacher"),
    "agreement": Metric(_by_token("agreed"), _mean, needs="teacher"),
}
METRICS: Registry[Metric] = Registry("metric", "softprompt.metrics", _LIBRARY, _metric_of)


def default_metrics(task_kind: str, *, taught: bool = False) -> list[str]:
    """Return the metrics of a task that names none; the first chooses the best step on the dev rows.

    `taught`: a teacher's distributions are known at the rows' targets.
    """
    if taught:
        return ["kl", "agreement", "perplexity", "chrf"]
    defaults = {
        "generation": ["perplexity", "chrf", "rouge_l"],  # perplexity first: it needs no generation
        "classification": ["accuracy", "macro_f1"],
        "choice": ["accuracy"],
        "token-classification": ["tag_accuracy", "tag_macro_f1"],
        "regression": ["mse", "pearson"],
        "preference": ["preference_accuracy", "reward_margin", "chosen_reward", "rejected_reward"],
    }
    if task_kind not in defaults:
        raise unknown("task kind", task_kind, defaults)
    return defaults[task_kind]


def check_metrics(names: Sequence[str], task_kind: str) -> None:
    """Raise SoftPromptError for an unknown metric, and for one that such a task has no numbers for."""
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, METRICS, fix="correct task.metrics")
        needs, is_pair = METRICS[name].needs, task_kind == "preference"
        if (needs == "rewards") != is_pair and (needs != "nll" or not is_pair):
            raise SoftPromptError(
                f"metric '{name}' cannot score a {task_kind} task",
                why="a preference task compares the log-probabilities of two answers, and writes none"
                if is_pair
                else "only a preference task has rewards of two answers",
                fix=f"task.metrics={','.join(default_metrics(task_kind))}".replace("=", "=[") + "]",
            )
