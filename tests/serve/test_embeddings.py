"""/v1/embeddings: the vectors of `Tuned.encode`, in OpenAI's form, also where a batch mixes prompts."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import pytest

import softprompt
from softprompt.lm.heads import Head
from softprompt.serve.embedding_engine import EmbeddingEngine
from softprompt.serve.http import create_app
from softprompt.serve.registry import Registry

testclient = pytest.importorskip("fastapi.testclient")
pytestmark = pytest.mark.whole

ROWS = [{"query": f"what of {w}", "positive": f"{w} is it"} for w in ("sun", "mud", "cake", "rain")]
TEXTS = ["what of tea", "a", "a longer text than the others are"]
SMALL = {"steps": 1, "batch_size": 4, "dtype": "float32", "length": 2, "lr": 0.5}


@pytest.fixture(scope="module")
def served(bert_folder, tmp_path_factory):
    """A folder with a soft prompt, a prefix, and two domains in one artifact; opened prompts by name."""
    folder = tmp_path_factory.mktemp("served")
    lm = softprompt.load(bert_folder, head=Head("pooling"), dtype="float32")
    for name, method in (("soft", "prompt-tuning"), ("prefix", "prefix-tuning")):
        softprompt.tune(lm, method, ROWS, dev=ROWS, task="embedding", output=folder / name, **SMALL)
    rows = [{**row, "domain": "ab"[i % 2]} for i, row in enumerate(ROWS)]
    softprompt.tune(
        lm, "prompt-tuning", rows, dev=rows, task="embedding", output=folder / "two",
        prompt_field="domain", **SMALL,
    )  # fmt: skip
    return folder, lm


@pytest.fixture(scope="module")
def client(served):
    folder, lm = served
    engine = EmbeddingEngine(lm, Registry(folder, lm))
    engine.start()
    app = create_app(
        engine, engine.registry, model_name="base", tokenizer=lm.tokenizer, context=lm.spec.context
    )
    with testclient.TestClient(app) as client:
        yield client
    engine.stop()


def encode(served, name, texts, **options):
    folder, lm = served
    artifact, _, prompt = name.partition(":")
    return softprompt.open_prompt(folder / artifact, lm).encode(texts, prompt=prompt or None, **options)


@pytest.mark.parametrize("name", ["soft", "prefix", "two:a", "two:b"])
def test_vectors_are_those_of_encode(served, client, name):
    reply = client.post("/v1/embeddings", json={"model": name, "input": TEXTS}).json()
    assert reply["object"] == "list" and reply["model"] == name
    assert [item["index"] for item in reply["data"]] == [0, 1, 2]
    vectors = np.array([item["embedding"] for item in reply["data"]])
    np.testing.assert_allclose(vectors, encode(served, name, TEXTS), atol=1e-5)
    lm = served[1]
    tokens = sum(len(lm.tokenizer(text)["input_ids"]) for text in TEXTS)
    assert reply["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_prompts_are_mixed_in_a_batch(served):
    folder, lm = served
    registry = Registry(folder, lm)
    engine = EmbeddingEngine(lm, registry)
    names = ["soft", "two:b", "prefix", None, "two:a", "soft"]

    async def run():
        waiting = []
        for name in names:
            loaded = None if name is None else registry.get(name)
            encoder = registry.get("soft").encoder if loaded is None else loaded.encoder
            prompt = encoder.prompts[0 if loaded is None else loaded.index]
            examples = [encoder.encode(text, with_target=False, prompt=prompt) for text in TEXTS]
            waiting.append(engine.embedding(loaded, examples))
        engine.start()  # all of them wait already
        return await asyncio.gather(*waiting)

    results = asyncio.run(run())
    engine.stop()
    assert engine.numbers()["batches_total"] == 2  # of all prompts together, and of the plain model
    for name, vectors in zip(names, results, strict=True):
        expected = (
            softprompt.open_prompt(folder / "soft", lm, plain=True).encode(TEXTS)
            if name is None
            else encode(served, name, TEXTS)
        )
        np.testing.assert_allclose(np.array(vectors), expected, atol=1e-5)


def test_one_text_and_base64(served, client):
    body = {"model": "soft", "input": TEXTS[0], "encoding_format": "base64"}
    (item,) = client.post("/v1/embeddings", json=body).json()["data"]
    vector = np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4")
    np.testing.assert_allclose(vector, encode(served, "soft", TEXTS[0]), atol=1e-5)


def test_the_openai_client_reads_it(served, client):
    openai = pytest.importorskip("openai")
    theirs = openai.OpenAI(base_url="http://testserver/v1", api_key="any", http_client=client)
    reply = theirs.embeddings.create(model="two:a", input=TEXTS)
    vectors = np.array([item.embedding for item in reply.data])
    np.testing.assert_allclose(vectors, encode(served, "two:a", TEXTS), atol=1e-5)
    assert reply.usage.prompt_tokens > 0


@pytest.mark.parametrize(
    "body, status, part",
    [
        ({"model": "soft", "input": []}, 400, "input: must not be empty"),
        ({"model": "soft", "input": [1, 2, 3]}, 400, "input.0: must be a string"),  # token ids
        ({"model": "soft", "input": ["a", " "]}, 400, "input.1"),
        ({"model": "none", "input": "a"}, 404, "none"),
        ({"model": "soft", "input": "a", "dimensions": 8}, 400, "32 dimensions"),
        ({"model": "soft", "input": "word " * 500}, 400, "input"),
        ({"model": "two", "input": "a"}, 400, "two:a"),
    ],
)
def test_bad_requests(client, body, status, part):
    reply = client.post("/v1/embeddings", json=body)
    assert reply.status_code == status and part in reply.text


def test_other_routes_say_what_to_do(client):
    reply = client.post("/v1/completions", json={"model": "soft", "prompt": "a"})
    assert reply.status_code == 400 and "/v1/embeddings" in reply.text
    assert {model["id"] for model in client.get("/v1/models").json()["data"]} == {
        "base", "soft", "prefix", "two:a", "two:b",
    }  # fmt: skip
