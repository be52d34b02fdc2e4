"""The short form of benchmarks.embeddings trains every way on every set, and measures it on all of them."""

from __future__ import annotations

import json

import pytest
from benchmarks import embeddings
from benchmarks.embedding import sets
from tests.printed import printed

pytestmark = pytest.mark.whole


def test_every_way_is_measured_on_its_own_set_and_on_the_others():
    code, out = printed(embeddings.main, "--short", "--sets", "banking77", "squad")
    assert code == 0
    lines = out.splitlines()
    results = [json.loads(line) for line in lines if line.startswith("{")]
    names = ("banking77", "squad")
    expected = {(way.name, one, other) for way in embeddings.WAYS for one in names for other in names}
    measured = [(r["way"], r["trained"], r["measured"]) for r in results]
    assert set(measured) == expected | {("plain", None, name) for name in names}
    assert len(measured) == len(set(measured))
    for result in results:
        assert 0 <= result["metrics"]["ndcg_at_10"] <= 1 and result["rows"] > 0
        assert (result["bytes"] > 0) == (result["way"] != "plain")
    assert sum(line.startswith("| ") for line in lines) == len(results) + 1


def test_sets_are_cut_as_the_page_says(tmp_path):
    _, data = sets.made_up(tmp_path)
    rows = {name: cut(data) for name, cut in sets.SETS.items()}
    assert rows["banking77"]["test"][0] == {"query": "my sun test", "positive": "sun it"}
    assert rows["qqp"]["train"][0] == {"query": "a mud", "positive": "mud t"}  # duplicates alone
    texts = [{row["positive"] for row in rows["squad"][split]} for split in sets.SPLITS]
    assert not texts[0] & texts[2] and {"query": "what sun", "positive": "sun has"} in rows["squad"]["test"]


def test_the_table_has_the_share_of_loras_gain():
    def result(way, trained, score):
        metrics = {"ndcg_at_10": score, "mrr": score, "recall_at_1": score}
        intervals = {"ndcg_at_10": (score, score)}
        return embeddings.Result(way, trained, "a", metrics, intervals, 1, 1, 1.0, 1, None)

    text = embeddings.table([result("plain", None, 0.5), result("x", "a", 0.58), result("LoRA", "a", 0.6)])
    assert [line.split("|")[7].strip() for line in text.splitlines()[2:]] == ["", "80%", "100%"]
