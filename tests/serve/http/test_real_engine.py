"""The API over the real engine on a tiny model: the same answers as the library gives alone."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import os

import httpx2 as httpx
import openai
import pytest
from tests.serve.http.conftest import CHAT, serving

from softprompt.serve.engine import Engine
from softprompt.serve.registry import Registry
from softprompt.tuned import open_prompt

# What can be asked for: each prompt of a table by its name, and no damaged one.
LISTED = {"tiny", "soft", "prefix", "a/two:joke", "a/two:fact", "a/mood"}
INPUTS = ["what a film", "no", "a much longer one, with commas", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture(scope="module")
def lm(new_lm, folder, publish):
    lm = new_lm("llama")
    lm.tokenizer.chat_template = CHAT
    publish(lm, folder / "soft", "prompt-tuning", {"length": 4, "placement": "before"}, seed=1)
    publish(lm, folder / "prefix", "prefix-tuning", {"length": 3}, seed=2)
    publish(lm, folder / "a/two", "prompt-tuning", {"length": 2}, seed=3, prompts=("joke", "fact"))
    publish(lm, folder / "a/mood", "prefix-tuning", {"length": 3}, seed=4, labels=("good", "bad"))
    publish(lm, folder / "broken", "prompt-tuning", {"length": 2}, seed=5)
    (folder / "broken" / "prompt.safetensors").write_bytes(b"nothing")
    return lm


@pytest.fixture(scope="module")
def served(lm, folder):
    with serving(lm, folder, max_tokens=2**15) as running:
        yield running


@pytest.fixture
def client(served):
    return openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0)


def ask(client, model, text, **more):
    return client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        **({"temperature": 0, "max_tokens": 12} | more),
    )


def test_a_chat_answers_what_generate_answers(client, lm, folder):
    """Many at once, under different prompts, each as if alone."""
    jobs = [(name, text) for name in ("soft", "prefix", "a/two:joke", "a/two:fact") for text in INPUTS]
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        replies = list(pool.map(lambda job: ask(client, *job), jobs))
    for (name, text), reply in zip(jobs, replies, strict=True):
        path, _, prompt = name.partition(":")
        alone = open_prompt(folder / path, lm).generate(text, prompt=prompt or None, max_new_tokens=12)
        assert reply.choices[0].message.content.strip() == alone
        assert reply.usage.prompt_tokens == len(text) and reply.usage.prompt_vectors > 0


def test_strength_zero_is_the_plain_model(client):
    plain = client.completions.create(model="tiny", prompt="hello", temperature=0, max_tokens=10)
    for name in ("soft", "prefix"):
        zero = client.completions.create(
            model=name, prompt="hello", temperature=0, max_tokens=10, extra_body={"strength": 0}
        )
        assert zero.choices[0].text == plain.choices[0].text


def test_labels_are_scored_as_evaluate_scores_them(served, lm, folder):
    tuned = open_prompt(folder / "a/mood", lm)
    rows = [{"input": text, "target": "good"} for text in INPUTS]
    records = tuned.evaluate(rows).records
    reply = httpx.post(served.url + "/v1/classify", json={"model": "a/mood", "input": INPUTS}).json()
    for record, found in zip(records, reply["data"], strict=True):
        total = sum(math.exp(score) for score in record.scores)
        expected = [math.exp(score) / total for score in record.scores]
        assert list(found["probs"].values()) == pytest.approx(expected, abs=1e-5)
        assert found["label"] == record.prediction
    plain = httpx.post(
        served.url + "/v1/classify", json={"model": "a/mood", "input": "no", "strength": 0}
    ).json()
    alone = open_prompt(folder / "a/mood", lm, plain=True).evaluate(rows[1:2]).records[0]
    assert max(plain["data"][0]["probs"].values()) == pytest.approx(
        math.exp(max(alone.scores)) / sum(map(math.exp, alone.scores)), abs=1e-5
    )


def test_streaming_and_log_probabilities_of_real_tokens(client):
    whole = ask(client, "soft", "hello", logprobs=True, top_logprobs=2)
    parts = list(ask(client, "soft", "hello", stream=True))
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.choices[0].message.content
    scores = whole.choices[0].logprobs.content
    assert len(scores) == whole.usage.completion_tokens
    assert all(one.logprob == pytest.approx(one.top_logprobs[0].logprob) for one in scores)  # greedy


def test_an_input_is_scored_with_echo(client):
    output = client.completions.create(
        model="soft", prompt="hello", temperature=0, echo=True, logprobs=1, max_tokens=0
    )
    found = output.choices[0].logprobs
    assert output.choices[0].text == "hello" and "".join(found.tokens) == "hello"
    assert found.token_logprobs[0] is None and all(value < 0 for value in found.token_logprobs[1:])


def test_a_broken_prompt_and_a_wrong_request_leave_the_others_be(client):
    with pytest.raises(openai.UnprocessableEntityError):
        ask(client, "broken", "hello")
    for text, more in (("x" * 250, {}), ("x" * 200, {"max_tokens": 100})):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, "soft", text, **more)
        assert caught.value.code == "context_length_exceeded"
    for name in ("../soft", "/etc", "soft/../soft", "a", "a/two:song", "soft/"):
        with pytest.raises(openai.NotFoundError):
            ask(client, name, "hello")
    assert ask(client, "soft", "hello").choices[0].finish_reason in ("stop", "length")
    assert {m.id for m in client.models.list()} == LISTED


def test_metrics_have_the_engines_numbers(served, client):
    ask(client, "soft", "hello")
    text = httpx.get(served.url + "/metrics").text
    assert "softprompt_engine_requests_running 0.0" in text
    assert "# TYPE softprompt_engine_requests_total counter" in text


def test_a_request_keeps_the_version_it_was_rendered_for(tmp_path, lm, publish, asked, read):
    """What changes on disk between its template and its vectors does not mix the two."""
    publish(lm, tmp_path / "mood", "prefix-tuning", {"length": 3}, seed=1, labels=("good", "bad"))
    engine = Engine(lm, Registry(tmp_path, lm), max_tokens=2**12)
    engine.start()
    request = asked("mood", lm.tokenizer("hello")["input_ids"], 8, logprobs=0)
    first = engine.registry.get("mood")

    def output(loaded):
        logprobs = [token.logprob for token in read(engine.submit(request, loaded))[0]]
        (scores,) = asyncio.run(engine.classifying("mood", ["hello"], loaded=loaded))
        return logprobs[:1] + list(scores.values())

    before = output(None)
    publish(lm, tmp_path / "mood", "prefix-tuning", {"length": 3}, seed=2, labels=("good", "bad"))
    changed, kept = output(None), output(first)
    engine.stop()
    assert kept == pytest.approx(before, abs=1e-5) and changed != pytest.approx(before, abs=1e-5)


def test_a_folder_that_no_request_can_name_is_not_listed(served, client, folder, lm, publish):
    """A colon parts folder from prompt, so a folder with one would be another's under a key's pattern."""
    with pytest.raises(openai.UnprocessableEntityError):
        ask(client, "broken", "hello")  # a damaged one is listed until it is asked for
    publish(lm, folder / "soft:secret", "prompt-tuning", {"length": 2}, seed=6)
    publish(lm, folder / "plain", "prompt-tuning", {"length": 2}, seed=6)
    os.rename(folder / "plain", os.fsencode(folder) + b"/\xff")
    assert {m.id for m in client.models.list()} == LISTED
    with pytest.raises(openai.NotFoundError):
        ask(client, "soft:secret", "hello")
