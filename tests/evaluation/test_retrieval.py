"""Ranks of documents where scores are equal, or are no numbers."""

from __future__ import annotations

import math

import pytest
import torch

from softprompt.errors import SoftPromptError
from softprompt.evaluation import encoding
from softprompt.evaluation.metric_intervals import compute
from softprompt.evaluation.retrieval import ranks_of

NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "relevant", "ranks"),
    [
        ([0.1, 0.4, 0.3, 0.2], [1, 3], (1, 3)),
        ([0.5, 0.5, 0.5], [1], (3,)),  # of equal ones, those that do not fit are nearer
        ([0.5, -math.inf, 0.4], [2], (2,)),  # the query itself is left out
        ([NAN, NAN, NAN, NAN], [2], None),
        ([0.1, 0.2, NAN, 0.3], [2], None),
        ([0.1, NAN, 0.5, 0.3], [2], (2,)),
    ],
)
def test_ranks(scores, relevant, ranks):
    result = ranks_of(torch.tensor(scores), relevant)
    if ranks is None:  # a model that gives no numbers may not look perfect
        assert min(result) >= len(scores)
    else:
        assert result == ranks


def test_vectors_that_are_no_numbers_are_an_error(monkeypatch, llama):
    monkeypatch.setattr(encoding, "vectors_of", lambda *_: torch.tensor([[1.0, 2.0], [NAN, 1.0]]))
    with pytest.raises(SoftPromptError, match="vector of text 1"):
        encoding.vectors(llama, None, [None, None])


def test_a_query_in_several_rows_counts_once():
    """Sixty rows of ten queries have the mean and the interval of ten rows."""
    reciprocal = [1, 1 / 2, 1, 1 / 4, 1 / 3, 1, 1 / 5, 1 / 2, 1 / 9, 1]
    ranks = [(round(1 / value),) for value in reciprocal]
    alone = compute(["mrr"], [], [], ranks=ranks, query_rows=[1] * 10)["mrr"]
    counts = [int(i % 6 == 0) for i in range(60)]
    many = compute(["mrr"], [], [], ranks=[r for r in ranks for _ in range(6)], query_rows=counts)["mrr"]
    assert (many.value, many.low, many.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert alone.value == pytest.approx(sum(reciprocal) / 10) and alone.high - alone.low > 0.3
