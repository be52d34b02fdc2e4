"""The short form of benchmarks.rerankers measures every way beside the order of the plain encoder."""

from __future__ import annotations

import json
import math

import pytest
from benchmarks import rerankers
from benchmarks.embedding.equal_time import WAYS
from tests.printed import printed

pytestmark = pytest.mark.whole


def test_every_way_sorts_the_requests_of_the_set():
    code, out = printed(rerankers.main, "--short", "--sets", "banking77")
    assert code == 0
    results = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [r["way"] for r in results] == [rerankers.ORDER, *(way.name for way in WAYS)]
    assert len({r["queries"] for r in results}) == 1 and results[0]["queries"] > 0
    for result in results:
        assert 0 <= result["ndcg_at_10"] <= 1
        assert (result["bytes"] > 0) == (result["way"] != rerankers.ORDER)
    assert sum(line.startswith("| ") for line in out.splitlines()) == len(results) + 1


def test_the_order_of_the_encoder_is_scored_by_the_place_of_the_document_that_fits():
    rows = [{"query": "a", "fits": 1}, {"query": "a", "fits": 0}]
    rows += [{"query": "b", "fits": 0}, {"query": "b", "fits": 0}, {"query": "b", "fits": 1}]
    result = rerankers.order_alone("set", rows)
    assert result.ndcg_at_10 == pytest.approx((1 + 1 / math.log2(4)) / 2)
    assert (result.recall_at_1, result.queries) == (0.5, 2)
