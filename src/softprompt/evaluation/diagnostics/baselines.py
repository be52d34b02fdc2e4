"""A tuned prompt is compared with something simpler: the plain model on the same inputs, or TF-IDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .run import Encoded, Finding, Run
from .untried import untried


@dataclass(frozen=True)
class Guess:
    """The answer that a baseline gives to a row."""

    input: str
    prediction: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class Baseline:
    """A baseline has its accuracy in 0..1, and the rows behind it."""

    accuracy: float
    records: list[Guess]

    @property
    def scores(self) -> list[float]:
        """Return 1 for each row that is right, else 0."""
        return [float(record.prediction in record.references) for record in self.records]


def tfidf_baseline(train: Sequence[Encoded], test: Sequence[Encoded]) -> Baseline:
    """Fit logistic regression on TF-IDF of words and word pairs, with scikit-learn's defaults.

    The inputs are those that the model reads. With one label in the training rows, that is the answer.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    labels = [example.rendered.target for example in train]
    inputs = [example.rendered.input for example in test]
    if len(set(labels)) < 2:
        predictions = [labels[0]] * len(inputs)
    else:
        # A single character counts as a word: else inputs in other scripts, or of digits, would be empty.
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b|[^\w\s]")
        model = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))
        predictions = model.fit([e.rendered.input for e in train], labels).predict(inputs).tolist()
    records = [
        Guess(e.rendered.input, p, (e.rendered.target,)) for e, p in zip(test, predictions, strict=True)
    ]
    right = sum(record.prediction in record.references for record in records)
    return Baseline(right / max(1, len(records)), records)


def better_baseline(run: Run) -> Finding | None:
    """Report where the best of `run.baselines`, or the manifest's plain model, is as good or better."""
    if run.scores and run.baselines:
        means = {name: sum(scores) / len(scores) for name, scores in run.baselines.items() if scores}
        tuned = sum(run.scores) / len(run.scores)
        name = max(means, key=lambda key: means[key])
        if means[name] >= tuned:
            # the scores of a metric that is better when lower are negative
            evidence = (
                f"{name} {abs(means[name]):.3f}, tuned {abs(tuned):.3f}, on the same {len(run.scores)} rows"
            )
            return _finding(run, name, evidence)
    return _plain(run)


def _plain(run: Run) -> Finding | None:
    from ..metrics import METRICS

    dev, plain = run.manifest.get("dev", {}), run.manifest.get("plain", {})
    metric = next(iter(dev.get("metrics", {})), None)
    if metric is None or metric not in plain.get("metrics", {}) or metric not in METRICS:
        return None
    tuned, other = dev["metrics"][metric], plain["metrics"][metric]
    if (other < tuned) if METRICS[metric].higher_is_better else (other > tuned):
        return None
    return _finding(
        run, "the plain model", f"dev {metric}: {other:.3g} plain, {tuned:.3g} tuned, {dev.get('n')} rows"
    )


def _finding(run: Run, name: str, evidence: str) -> Finding:
    summary = f"{name} does as well or better: as it is, the prompt is not worth serving"
    return Finding("warning", summary, evidence, untried(run))
