"""A tuned prompt in sentence-transformers: equal vectors, and its evaluators."""

from __future__ import annotations

import numpy as np
import pytest

import softprompt

pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.whole

ROWS = [{"query": f"what of {w}", "positive": f"{w} is it"} for w in ("sun", "mud", "cake", "rain")]


@pytest.fixture(scope="module")
def tuned(bert_folder, tmp_path_factory):
    return softprompt.tune(
        str(bert_folder), "prompt-tuning", ROWS, dev=ROWS, task="embedding", steps=1, length=2, lr=0.5,
        dtype="float32", template={"target": "doc: {{ positive }}"},
        output=tmp_path_factory.mktemp("st") / "a",
    )  # fmt: skip


def test_vectors_are_those_of_encode(tuned):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(modules=[softprompt.SentenceModule(tuned)], device="cpu")
    texts = ["what of tea", "a", "a longer text than the others"]
    np.testing.assert_allclose(model.encode(texts), tuned.encode(texts), atol=1e-5)
    documents = tuned.encode(texts, document=True)
    np.testing.assert_allclose(model.encode_document(texts), documents, atol=1e-5)
    assert np.abs(documents - tuned.encode(texts)).max() > 1e-3
    assert model.max_seq_length == 254
    with pytest.raises(softprompt.SoftPromptError, match="max_seq_length=9 cannot be set"):
        model.max_seq_length = 9


def test_their_evaluator_ranks_as_ours_does(tuned):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.evaluation import InformationRetrievalEvaluator

    model = SentenceTransformer(modules=[softprompt.SentenceModule(tuned)], device="cpu")
    queries = {str(i): row["query"] for i, row in enumerate(ROWS)}
    corpus = {str(i): row["positive"] for i, row in enumerate(ROWS)}
    theirs = InformationRetrievalEvaluator(
        queries, corpus, {i: {i} for i in queries}, mrr_at_k=[4], ndcg_at_k=[10], accuracy_at_k=[1],
        precision_recall_at_k=[1], map_at_k=[4], show_progress_bar=False,
    )(model)  # fmt: skip
    ours = tuned.evaluate(ROWS).metrics
    assert theirs["cosine_ndcg@10"] == pytest.approx(ours["ndcg_at_10"].value, abs=1e-6)
    assert theirs["cosine_mrr@4"] == pytest.approx(ours["mrr"].value, abs=1e-6)
    assert theirs["cosine_recall@1"] == pytest.approx(ours["recall_at_1"].value, abs=1e-6)


def test_other_prompts_are_refused(model_folder, tmp_path):
    rows = [{"input": "a", "target": "b"}, {"input": "c", "target": "d"}]
    other = softprompt.tune(
        str(model_folder), "prompt-tuning", rows, dev=rows, steps=1, length=1, output=tmp_path / "out"
    )
    with pytest.raises(softprompt.SoftPromptError, match="gives no vectors"):
        softprompt.SentenceModule(other)
    with pytest.raises(softprompt.SoftPromptError, match="gives no vectors"):
        other.encode("a")
