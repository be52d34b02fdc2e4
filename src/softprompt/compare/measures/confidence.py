"""How sure a model is of its labels: what `calibration` takes, from the scores of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...errors import SoftPromptError
from ...evaluation.evaluator import Record


@dataclass(frozen=True, slots=True)
class Confidence:
    """Of one row: the predicted label or choice (by number), its probability, whether it is right."""

    label: int
    confidence: float  # 1 / labels … 1
    correct: bool


def confidences(records: Sequence[Record]) -> list[Confidence]:
    """The softmax over the labels' log-probabilities, row by row.

    So a confidence is the label's probability given that the answer is one of the labels.
    Raises SoftPromptError for records without label scores.
    """
    if any(record.scores is None for record in records):
        raise SoftPromptError(
            "these answers have no label scores",
            why="only labels and choices are scored against each other",
            fix="measure calibration on a classification or choice task",
        )
    found = []
    for record in records:
        probabilities = torch.tensor(record.scores, dtype=torch.float64).softmax(0)
        best = int(probabilities.argmax())
        right = record.prediction.strip() in {text.strip() for text in record.references}
        found.append(Confidence(best, probabilities[best].item(), right))
    return found
