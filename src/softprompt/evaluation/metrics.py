"""Each metric is defined by per-example statistics and the score of their sum.

BLEU sums n-gram counts, macro F1 counts by label, perplexity log-probabilities and tokens. The statistics of
BLEU and chrF are `sacrebleu`'s and those of ROUGE-L `rouge-score`'s; the value is what these libraries give
for the corpus. A new metric is one function and one line of `METRICS`. Other packages add metrics by entry
points of the group `softprompt.metrics` (`own_metrics`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

from softprompt._system.plugins import Registry
from softprompt.errors import SoftPromptError, unknown
from softprompt.evaluation.label_metrics import (
    accuracy_stats,
    f1_score,
    f1_stats,
    label_counts,
    mse_stats,
    pearson_score,
    pearson_stats,
    tag_accuracy_stats,
    tags_of,
)
from softprompt.evaluation.metric import Inputs, Metric, mean_score, with_ones
from softprompt.evaluation.rank_metrics import ndcg, ranked, recall, reciprocal_rank, spearman_stats

if TYPE_CHECKING:
    import numpy as np


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def _exact_stats(inputs: Inputs) -> np.ndarray:
    pairs = zip(inputs.predictions, inputs.references, strict=True)
    return with_ones([_normal(text) in {_normal(ref) for ref in refs} for text, refs in pairs])


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
    return with_ones([scorer.score_multi(list(refs), text)["rougeL"].fmeasure for text, refs in pairs])


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
        return with_ones([value(chosen, rejected) for chosen, rejected in inputs.rewards])

    return Metric(stats, mean_score, needs="rewards")


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
    "accuracy": Metric(accuracy_stats, mean_score),
    "macro_f1": Metric(f1_stats, f1_score),
    "tag_accuracy": Metric(tag_accuracy_stats, mean_score),
    "tag_macro_f1": Metric(lambda inputs: label_counts(*tags_of(inputs)), f1_score),
    "mse": Metric(mse_stats, mean_score, higher_is_better=False, needs="number"),
    "pearson": Metric(pearson_stats, pearson_score, needs="number"),
    "exact_match": Metric(_exact_stats, mean_score),
    "bleu": _sacrebleu_metric("BLEU"),
    "chrf": _sacrebleu_metric("CHRF"),
    "rouge_l": Metric(_rouge_stats, mean_score),
    "spearman": Metric(spearman_stats, pearson_score, needs="number", of_one_seed=True),
    **{f"recall_at_{k}": recall(k) for k in (1, 5, 10, 100)},
    "mrr": ranked(reciprocal_rank),
    "ndcg_at_10": ndcg(10),
    "perplexity": Metric(_perplexity_stats, _perplexity_score, higher_is_better=False, needs="nll"),
    "preference_accuracy": _rewards(lambda chosen, rejected: chosen > rejected),
    "reward_margin": _rewards(lambda chosen, rejected: chosen - rejected),
    "chosen_reward": _rewards(lambda chosen, rejected: chosen),
    "rejected_reward": _rewards(lambda chosen, rejected: rejected),
    "kl": Metric(_by_token("divergence"), mean_score, higher_is_better=False, needs="teacher"),
    "agreement": Metric(_by_token("agreed"), mean_score, needs="teacher"),
}
METRICS: Registry[Metric] = Registry("metric", "softprompt.metrics", _LIBRARY, _metric_of)


def default_metrics(
    task_kind: str, *, taught: bool = False, scored: bool = False, reranks: bool = False
) -> list[str]:
    """Return the metrics of a task that names none; the first chooses the best step on the dev rows.

    `taught`: a teacher's distributions are known at the rows' targets. `scored`: the rows of an embedding
    task are pairs with a score. `reranks`: the numbers of a regression rank the documents of queries.
    """
    if reranks:
        return ["ndcg_at_10", "mrr", "recall_at_1", "mse"]
    if taught:
        return ["kl", "agreement", "perplexity", "chrf"]
    defaults = {
        "generation": ["perplexity", "chrf", "rouge_l"],  # perplexity first: it needs no generation
        "classification": ["accuracy", "macro_f1"],
        "choice": ["accuracy"],
        "token-classification": ["tag_accuracy", "tag_macro_f1"],
        "regression": ["mse", "pearson"],
        "embedding": ["spearman"] if scored else ["ndcg_at_10", "mrr", "recall_at_1", "recall_at_10"],
        "preference": ["preference_accuracy", "reward_margin", "chosen_reward", "rejected_reward"],
    }
    if task_kind not in defaults:
        raise unknown("task kind", task_kind, defaults)
    return defaults[task_kind]


def check_metrics(
    names: Sequence[str], task_kind: str, *, scored: bool = False, reranks: bool = False
) -> None:
    """Raise SoftPromptError for an unknown metric, and for one that such a task has no numbers for.

    `scored` and `reranks` are as in `default_metrics`.
    """
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, METRICS, fix="correct task.metrics")
        needs, is_pair = METRICS[name].needs, task_kind == "preference"
        if reranks and needs == "ranks":
            continue
        ranks = task_kind == "embedding"
        if (needs == "ranks") != (ranks and not scored) or (ranks and scored and needs != "number"):
            usual = default_metrics(task_kind, scored=scored)
            raise SoftPromptError(
                f"metric '{name}' cannot score {'pairs with a score' if scored else f'a {task_kind} task'}",
                why="an embedding task ranks documents, or compares cosines with scores (task.score)"
                if ranks
                else "only an embedding task ranks documents, and a regression with task.query",
                fix=f"task.metrics=[{','.join(usual)}]",
            )
        if (needs == "rewards") != is_pair and (needs != "nll" or not is_pair):
            raise SoftPromptError(
                f"metric '{name}' cannot score a {task_kind} task",
                why="a preference task compares the log-probabilities of two answers, and writes none"
                if is_pair
                else "only a preference task has rewards of two answers",
                fix=f"task.metrics={','.join(default_metrics(task_kind))}".replace("=", "=[") + "]",
            )
