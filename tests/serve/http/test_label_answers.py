"""A prompt that chooses among labels answers with the label that /v1/classify gives, on every route."""

from __future__ import annotations

import httpx2 as httpx
import openai
import pytest
from tests.serve.http.conftest import CHAT, serving

from softprompt.tuned import open_prompt

LABELS = ("q", "bad", "k", "Z")
TEXTS = ("what a film", "no", "dull, dull", "x", "a much longer one, with commas", "1234", "??", "The End")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture(scope="module")
def served(new_lm, publish, folder):
    lm = new_lm("llama")
    lm.tokenizer.chat_template = CHAT
    for i, method in enumerate(("prompt-tuning", "prefix-tuning")):
        publish(lm, folder / method, method, {"length": 3}, seed=i, labels=LABELS, size=0.3)
    publish(lm, folder / "ahead", "prompt-tuning", {"length": 3, "placement": "before"}, labels=LABELS)
    with serving(lm, folder) as running:
        yield running


@pytest.fixture
def client(served):
    return openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0)


def labels(served, model, **more):
    body = {"model": model, "input": list(TEXTS), **more}
    return [one["label"] for one in httpx.post(served.url + "/v1/classify", json=body).json()["data"]]


@pytest.mark.parametrize("model", ["prompt-tuning", "prefix-tuning"])
@pytest.mark.parametrize("strength", [1, 0.5, 0])
def test_every_route_gives_the_label(served, client, folder, model, strength):
    expected = labels(served, model, strength=strength)
    if strength == 1:
        assert len(set(expected)) > 1
        assert expected == open_prompt(folder / model, served.engine.model).generate(list(TEXTS))
    for text, label in zip(TEXTS, expected, strict=True):
        extra = {"strength": strength}
        ask = {"model": model, "messages": [{"role": "user", "content": text}], "extra_body": extra}
        output = client.chat.completions.create(**ask, temperature=1.5, seed=3)
        assert (output.choices[0].message.content, output.choices[0].finish_reason) == (label, "stop")
        assert output.usage.prompt_tokens == len(text) and output.usage.prompt_vectors == (
            3 if strength else 0
        )
        encoder = served.engine.registry.get(model).encoder
        assert output.usage.completion_tokens == len(encoder.label_ids[LABELS.index(label)])
        parts = list(client.chat.completions.create(**ask, stream=True))
        assert "".join(part.choices[0].delta.content or "" for part in parts) == label
        assert parts[-1].choices[0].finish_reason == "stop"
        row = client.completions.create(model=model, prompt=None, extra_body=extra | {"row": {"input": text}})
        raw = client.completions.create(model=model, prompt=text, extra_body=extra)
        ids = served.engine.model.tokenizer(text)["input_ids"]
        own = client.completions.create(model=model, prompt=ids, extra_body=extra)
        assert {one.choices[0].text for one in (row, raw, own)} == {label}


def test_several_answers_and_several_prompts(served, client):
    expected = labels(served, "prompt-tuning")
    output = client.completions.create(model="prompt-tuning", prompt=list(TEXTS), n=2)
    assert [choice.text for choice in output.choices] == [label for label in expected for _ in range(2)]


def test_a_label_goes_without_log_probabilities(client):
    ask = {"model": "prompt-tuning", "messages": [{"role": "user", "content": "x"}]}
    with pytest.raises(openai.BadRequestError, match="/v1/classify") as caught:
        client.chat.completions.create(**ask, logprobs=True)
    assert caught.value.body["param"] == "logprobs"
    with pytest.raises(openai.BadRequestError, match="/v1/classify") as caught:
        client.completions.create(model="prompt-tuning", prompt="x", echo=True)
    assert caught.value.body["param"] == "echo"


def test_an_input_is_scored_under_it_as_under_any(client):
    output = client.completions.create(model="ahead", prompt="hello", echo=True, logprobs=1, max_tokens=1)
    assert output.choices[0].text.startswith("hello") and len(output.choices[0].logprobs.tokens) == 6


CHOICE = {
    "template": {"input": "{{ text }}", "target": "{{ answer }}"},
    "task": {"kind": "choice", "choices": "options"},
}
MESSAGE = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("completions", {"prompt": "hello"}, "prompt"),
        ("completions", {"prompt": ["hello", "you"], "n": 2, "stream": True}, "prompt"),
        ("completions", {"prompt": [1, 2]}, "prompt"),
        ("chat/completions", {"messages": MESSAGE, "rendering": "chat"}, "messages"),
    ],
)
def test_a_prompt_that_chooses_needs_the_choices_of_a_row(serve, path, body, param):
    served = serve(recipes={"pick": CHOICE})
    reply = httpx.post(f"{served.url}/v1/{path}", json={"model": "pick", **body})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, param)
    assert "chooses among the choices of each row: send `row` to /v1/completions" in error["message"]


def test_a_text_is_scored_under_a_prompt_that_chooses(serve):
    served = serve(recipes={"pick": CHOICE})
    body = {"model": "pick", "prompt": "hello", "echo": True, "logprobs": 1, "max_tokens": 0}
    reply = httpx.post(f"{served.url}/v1/completions", json=body)
    assert reply.status_code == 200 and reply.json()["choices"][0]["text"] == "hello"
