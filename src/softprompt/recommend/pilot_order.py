"""Orders the trials of a pilot: each method's best, and the methods by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..compare.candidates import REFERENCES
from ..compare.records.store import Record


@dataclass(frozen=True)
class PilotTrial:
    """A trial is a method with one of its learning rates, scored on the dev rows."""

    contestant: str
    settings: dict[str, Any]
    rows: int | None
    steps: int | None  # that it had; None where nothing is trained
    seconds: float
    artifact_bytes: int | None
    status: str  # "done", "pruned" (ended early: below the median of its rates, or out of time) or "failed"
    score: float | None  # the metric; None where it failed
    noise: float  # a standard error of the score; 0 where the metric is not a share of the rows
    key: tuple[float, ...]  # the score and the log-loss; higher is better
    error: str = ""


def trial_of(record: Record, metric: str, dev_rows: int) -> PilotTrial:
    """Read a trial from the record of a comparison; `metric` decides, on so many dev rows."""
    is_reference = record["contestant"] in REFERENCES
    dev = record.get("dev") or {name: score["value"] for name, score in (record.get("metrics") or {}).items()}
    score, error = dev.get(metric), (record.get("error") or {}).get("what", "")
    if record["status"] == "failed" or score is None or not math.isfinite(score):
        score, error = None, error or "no finite score"
    known = [] if score is None else record["dev_key"]
    key = tuple(-math.inf if value is None else value for value in known)
    return PilotTrial(
        record["contestant"],
        {} if is_reference else dict(record["settings"]),
        record["rows"],
        record.get("steps"),
        record.get("seconds") or 0.0,
        (record.get("cost") or {}).get("artifact_bytes"),
        record["status"],
        score,
        0.0 if score is None else standard_error(score, dev_rows),
        # the log-loss of a reference counts words that it was never taught to avoid
        key[:1] if is_reference else key,
        error,
    )


def named_first(order: Sequence[PilotTrial], name: str | None) -> list[PilotTrial]:
    """Return the trials with the named method as the first of those that are trained."""
    named = [trial for trial in order if trial.contestant == name]
    others = [trial for trial in order if trial.contestant != name]
    first = next((i for i, t in enumerate(others) if t.contestant not in REFERENCES), len(others))
    return [*others[:first], *named, *others[first:]]


def standard_error(score: float, rows: int) -> float:
    """Return the standard error of a share of the rows; 0 for a score outside 0 to 1."""
    return math.sqrt(score * (1 - score) / rows) if 0 <= score <= 1 and rows else 0.0


def best_first(trials: Sequence[PilotTrial]) -> list[PilotTrial]:
    """Order trials by score, and those within a standard error of the best by their log-loss.

    An accuracy on 80 rows moves by five points from draw to draw, a log-loss by less. A trial without a
    log-loss that can be compared keeps its place.
    """
    order = sorted(trials, key=lambda trial: -trial.key[0])
    least = order[0].key[0] - order[0].noise if order else 0.0
    places = [i for i, trial in enumerate(order) if trial.key[0] >= least and len(trial.key) > 1]
    near = sorted((order[i] for i in places), key=lambda trial: -trial.key[1])
    for place, trial in zip(places, near, strict=True):
        order[place] = trial
    return order


def in_order(played: Sequence[PilotTrial]) -> list[PilotTrial]:
    """Return each method's best trial, the best first; methods of which every trial failed come last.

    A trial that ended early counts only where no other of its method came to its end.
    """
    by_method: dict[str, list[PilotTrial]] = {}
    for trial in played:
        by_method.setdefault(trial.contestant, []).append(trial)
    best, failed = [], []
    for trials in by_method.values():
        ended = [t for t in trials if t.status == "done"] or [t for t in trials if t.key]
        (best if ended else failed).append((best_first(ended) or trials)[0])
    return best_first(best) + failed
