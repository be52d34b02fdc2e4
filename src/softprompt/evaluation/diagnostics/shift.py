"""Whether the dev rows, which choose what is kept, are like the test rows, which judge it."""

from __future__ import annotations

from collections.abc import Sequence

from .run import Finding, Run

FEWEST = 30  # rows of each
APART = 0.75  # area under the curve of a classifier that tells them apart
FOLDS = 5
MOST = 1000  # rows of each that are looked at


def dev_test_apart(run: Run) -> Finding | None:
    """Scores whose 95 % intervals do not meet, else inputs that a classifier tells apart."""
    if (finding := _scores_apart(run)) is not None:
        return finding
    if min(len(run.dev), len(run.test)) < FEWEST:
        return None
    area = told_apart(*([e.rendered.input for e in rows[:MOST]] for rows in (run.dev, run.test)))
    if area < APART:
        return None
    what = "dev and test rows are unlike: what is best on dev need not be on test"
    evidence = (
        f"a classifier of their words tells a dev from a test input with an area under "
        f"the curve of {area:.2f}"
    )
    return Finding("note", what, evidence + " (0.5: alike)", _mend(run))


def told_apart(dev: Sequence[str], test: Sequence[str]) -> float:
    """Cross-validated area under the curve of TF-IDF and logistic regression (Lopez-Paz & Oquab 2017)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    truth = [0] * len(dev) + [1] * len(test)
    words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b|[^\w\s]")
    model = make_pipeline(words, LogisticRegression(max_iter=1000, class_weight="balanced"))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    found = cross_val_predict(model, [*dev, *test], truth, cv=folds, method="decision_function")
    return float(roc_auc_score(truth, found))


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
    what = "dev and test scores are far apart: dev rows are unlike the test rows, or were chosen on too often"
    return Finding("warning", what, evidence, _mend(run))


def _mend(run: Run) -> str:
    return run.tune("data.dev=FILE") + "   (rows like those of the test file, none of them trained on)"
