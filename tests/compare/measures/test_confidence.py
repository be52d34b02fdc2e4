"""Confidences against probabilities of whole labels, worked out with the numbers beside them."""

from __future__ import annotations

import math

import pytest

from softprompt import methods
from softprompt.compare.measures.confidence import confidences
from softprompt.errors import SoftPromptError
from softprompt.evaluation.records import Record


def test_they_are_shares_of_the_labels_probabilities():
    records = [
        Record("", "a", ("a",), 0, 1.0, 1, (math.log(0.03), math.log(0.01))),
        Record("", "b", ("a",), 0, 1.0, 1, (-900.0, -900.0 + math.log(3))),
    ]
    first, second = confidences(records)
    assert (first.label, first.correct, second.label, second.correct) == (0, True, 1, False)
    assert first.confidence == pytest.approx(0.75) and second.confidence == pytest.approx(0.75)


def test_an_evaluation_gives_one_for_each_row(llama, setting, evaluator, rows):
    judge = evaluator("classification", ["no", "yes"])
    records = judge.run(methods.build("none", setting(llama)), judge.encoder.encode_rows(rows)).records
    for record, found in zip(records, confidences(records), strict=True):
        assert judge.encoder.labels[found.label] == record.prediction
        assert found.correct == (record.prediction in record.references)
        assert 0.5 <= found.confidence <= 1


def test_texts_have_none():
    with pytest.raises(SoftPromptError, match="no label scores"):
        confidences([Record("", "a", ("a",), 0, 1.0, 1)])
