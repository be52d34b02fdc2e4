"""The dev rows, which choose the step that is kept, are compared with the test rows."""

from __future__ import annotations

from collections.abc import Sequence

from .run import Finding, Run

FEWEST = 30  # rows of each
APART = 0.75  # area under the curve of a classifier that separates them
FOLDS = 5
MOST = 1000  # rows of each that are read


def dev_test_apart(run: Run) -> Finding | None:
    """Report scores whose 95 % intervals do not meet, else inputs that a classifier can separate."""
    if (finding := _scores_apart(run)) is not None:
        return finding
    if min(len(run.dev), len(run.test)) < FEWEST:
        return None
    area = separability(*([e.rendered.input for e in rows[:MOST]] for rows in (run.dev, run.test)))
    if area < APART:
        return None
    summary = "dev and test rows differ: the best on dev need not be the best on test"
    evidence = (
        f"a classifier of their words separates dev from test inputs with an area under "
        f"the curve of {area:.2f}"
    )
    return Finding("note", summary, evidence + " (0.5: alike)", _fix(run))


def separability(dev: Sequence[str], test: Sequence[str]) -> float:
    """Return the cross-validated area under the curve of logistic regression on TF-IDF (Lopez-Paz & Oquab
    2017).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    truth = [0] * len(dev) + [1] * len(test)
    words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b|[^\w\s]")
    model = make_pipeline(words, LogisticRegression(max_iter=1000, class_weight="balanced"))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    decisions = cross_val_predict(model, [*dev, *test], truth, cv=folds, method="decision_function")
    return float(roc_auc_score(truth, decisions))


def _scores_apart(run: Run) -> Finding | None:
    dev, test = run.manifest.get("dev", {}), run.test_scores
    metric = next(iter(dev.get("metrics", {})), None)
    if metric is None or metric not in test.get("intervals", {}):
        return None
    (low, high), (below, above) = dev["intervals"][metric], test["intervals"][metric]
    if low <= above and below <= high:
        return None
    shown = [
        f"{s['metrics'][metric]:.3g} [{s['intervals'][metric][0]:.3g}, {s['intervals'][metric][1]:.3g}]"
        for s in (dev, test)
    ]
    evidence = f"{metric}: {shown[0]} on {dev['n']} dev rows, {shown[1]} on {test['n']} test rows"
    summary = "dev and test scores are far apart: the rows differ, or dev rows were used for too many choices"
    return Finding("warning", summary, evidence, _fix(run))


def _fix(run: Run) -> str:
    return run.tune("data.dev=FILE") + "   (rows like those of the test file, none of them trained on)"
