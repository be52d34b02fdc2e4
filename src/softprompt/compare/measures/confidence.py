"""Computes how sure a model is of its labels, from the scores of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...errors import SoftPromptError
from ...evaluation.records import Record


@dataclass(frozen=True, slots=True)
class Confidence:
    """The label or choice (by number) that is predicted for a row, and its probability."""

    label: int
    confidence: float  # 1 / labels … 1
    correct: bool


def confidences(records: Sequence[Record]) -> list[Confidence]:
    """Return each row's softmax over the log-probabilities of the labels.

    A confidence is the label's probability given that the answer is one of the labels.
    Raises SoftPromptError for records without label scores.
    """
    if any(record.scores is None for record in records):
        raise SoftPromptError(
            "these answers have no label scores",
            why="only labels and choices are compared by their scores",
            fix="measure calibration on a classification or choice task",
        )
    rows = []
    for record in records:
        probabilities = torch.tensor(record.scores, dtype=torch.float64).softmax(0)
        best = int(probabilities.argmax())
        right = record.prediction.strip() in {text.strip() for text in record.references}
        rows.append(Confidence(best, probabilities[best].item(), right))
    return rows
