"""Measures whether a confidence of 80 % is right in 80 of 100 cases: calibration error, Brier score, bins.

Bins hold equally many rows (Nguyen & O'Connor 2015): bins of equal width leave most of them almost empty
where a model is sure, and their error with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softprompt.errors import SoftPromptError


@dataclass(frozen=True)
class Bin:
    """A bin is one point of a reliability diagram: mean confidence, share of right answers, rows."""

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """`ece` is the mean |confidence − accuracy| over bins, weighted by rows (Naeini et al. 2015); 0 … 1.

    `by_chance` is about what a perfectly calibrated model would show on so few rows: an `ece` near it shows
    nothing. `brier` is the mean squared difference of confidence and outcome (Brier 1950); 0 … 1.
    """

    ece: float
    by_chance: float
    brier: float
    bins: tuple[Bin, ...]


def calibration(confidence: Sequence[float], correct: Sequence[bool], bins: int = 10) -> Calibration:
    """Compare the probability of predicted labels `[N]` with whether they are right `[N]`, in `bins` bins.

    Rows of equal confidence share a bin, so that the order of rows does not matter.
    Raises SoftPromptError for no rows, different lengths, or a confidence outside of 0 … 1.
    """
    p, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if p.ndim != 1 or p.shape != right.shape or not len(p):
        raise SoftPromptError(f"{p.size} confidences for {right.size} answers", fix="give one for each row")
    if not ((p >= 0) & (p <= 1)).all():
        raise SoftPromptError("a confidence is outside of 0 … 1", fix="pass probabilities, not scores")
    # rows of equal confidence belong to the bin of their middle rank
    _, same, counts = np.unique(p, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    where = np.unique((middle * bins / len(p)).astype(int)[same], return_inverse=True)[1]
    n = np.bincount(where)
    confidences, accuracies = np.bincount(where, p) / n, np.bincount(where, right) / n
    points = tuple(map(Bin, confidences.tolist(), accuracies.tolist(), n.tolist()))
    # the mean of |x| for normal x of variance v is sqrt(2 v / π)
    chance = np.sqrt(2 / np.pi * np.bincount(where, p * (1 - p))).sum() / len(p)
    return Calibration(
        ece=float((n * np.abs(confidences - accuracies)).sum() / len(p)),
        by_chance=float(chance),
        brier=float(((p - right) ** 2).mean()),
        bins=points,
    )
