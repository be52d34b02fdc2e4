"""A classifier is reported that gives the same answer to every input."""

from __future__ import annotations

from collections import Counter

from .run import Finding, Run
from .untried import untried

PINNED = 0.98  # of the answers are one label
ROOM = 0.05  # and at least so many rows ask for another


def pinned_at_majority(run: Run) -> Finding | None:
    """Report records, or, without them, dev metrics that only a constant answer can give."""
    if run.setting("task", "kind") != "classification":
        return None
    return _of_records(run) if run.records else _of_metrics(run)


def _of_records(run: Run) -> Finding | None:
    label, count = Counter(record.prediction for record in run.records).most_common(1)[0]
    n = len(run.records)
    expected = sum(label in record.references for record in run.records)
    if count < PINNED * n or expected > (1 - ROOM) * n:
        return None
    return _finding(run, f"{count} of {n} answers are '{label}', which {expected} rows ask for")


def _of_metrics(run: Run) -> Finding | None:
    """A constant answer has its label's share s as accuracy, and 2s / (1 + s) / K as macro F1."""
    metrics = run.manifest.get("dev", {}).get("metrics", {})
    if not run.dev or not {"accuracy", "macro_f1"} <= set(metrics):
        return None
    counts = Counter(example.rendered.target for example in run.dev)
    for label, count in counts.items():
        share = count / len(run.dev)
        constant = 2 * share / (1 + share) / len(counts)
        exact = abs(metrics["accuracy"] - share) < 1e-6 and abs(metrics["macro_f1"] - constant) < 1e-6
        if exact and share <= 1 - ROOM:
            evidence = f"dev accuracy {share:.3f} and macro F1 {constant:.3f} are those of always '{label}'"
            return _finding(run, evidence)
    return None


def _finding(run: Run, evidence: str) -> Finding:
    summary = "it answers the same label whatever the input: the metric is pinned"
    return Finding("warning", summary, evidence, untried(run))
