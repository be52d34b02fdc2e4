"""Near the model's context: what fits is answered, what cannot is refused with who takes what."""

from __future__ import annotations

import httpx2 as httpx
import openai
import pytest
from tests.serve.http.conftest import CHAT, serving

from softprompt.serve.context import check_fits
from softprompt.serve.request import ContextExceeded

SOFT = {"soft": 4, "prefix": 0, "late": 5, "tiny": 0}  # soft tokens of each
WAYS = ("prompt", "ids", "message", "row", "chat")


@pytest.fixture(scope="module")
def served(new_lm, publish, tmp_path_factory):
    folder, lm = tmp_path_factory.mktemp("prompts"), new_lm("llama")
    lm.tokenizer.chat_template = CHAT
    publish(lm, folder / "soft", "prompt-tuning", {"length": 4, "placement": "before"}, seed=1)
    publish(lm, folder / "late", "prompt-tuning", {"length": 5, "placement": "after"}, seed=2)
    publish(lm, folder / "prefix", "prefix-tuning", {"length": 3}, seed=3)
    publish(lm, folder / "mood", "prompt-tuning", {"length": 4}, seed=4, labels=("good", "so so"))
    with serving(lm, folder, context=lm.spec.context) as running:
        yield running


@pytest.fixture
def lm(served):
    return served.engine.model


@pytest.fixture
def ask(served, lm):
    """`ask(way, model, n, …)`: a request whose input has `n` tokens, sent in one of the ways."""
    client = openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0)

    def say(way, model, n, **more):
        text = "a" * n
        if way == "chat":
            text = "a" * (n - len(lm.tokenizer("<user>\n<assistant>")["input_ids"]))
        rendering = "chat" if way == "chat" and model != "tiny" else None
        if way in ("message", "chat"):
            messages = [{"role": "user", "content": text}]
            return client.chat.completions.create(
                model=model, messages=messages, extra_body={"rendering": rendering}, **more
            )
        given = lm.tokenizer(text)["input_ids"] if way == "ids" else None if way == "row" else text
        row = {"row": {"input": text}} if way == "row" else {}
        return client.completions.create(model=model, prompt=given, extra_body=row, **more)

    return say


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", SOFT)
def test_what_fits_is_answered_and_one_more_is_not(ask, lm, way, model):
    if model == "tiny" and way in ("message", "row"):
        pytest.skip("the plain model has no template")
    context, soft = lm.spec.context, SOFT[model]
    most = context - soft - 6
    output = ask(way, model, most, max_tokens=6, extra_headers={})
    assert output.usage.prompt_tokens == most and 1 <= output.usage.completion_tokens <= 6
    for n, tokens in ((most + 1, 6), (most, 7)):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(way, model, n, max_tokens=tokens)
        error = caught.value
        assert error.code == "context_length_exceeded"
        named = {"ids": "prompt", "chat": "messages"}.get(way, way)
        assert (
            f"context is {context} tokens, and the request takes {context + 1}: {n} of the {named},"
            in error.message
        )
        assert (f"{soft} of soft tokens" in error.message) == bool(soft)
        assert (
            f"{tokens} of the answer (max_tokens)" in error.message and "max_new_tokens" not in error.message
        )
        fixed = int(error.message.split("lower max_tokens to ")[1].split(",")[0])
        assert ask(way, model, n, max_tokens=fixed).usage.prompt_tokens == n
        shorter = int(error.message.split(f"shorten the {named} to ")[1].split(" ")[0])
        assert ask(way, model, shorter, max_tokens=tokens).usage.prompt_tokens == shorter


@pytest.mark.parametrize("way", WAYS)
def test_without_max_tokens_the_answer_is_what_fits(ask, lm, way):
    """However many tokens the prompt was trained to write."""
    context = lm.spec.context
    output = ask(way, "soft", context - 4 - 2, logprobs=None)
    assert 1 <= output.usage.completion_tokens <= 2
    with pytest.raises(openai.BadRequestError) as caught:
        ask(way, "soft", context - 4)
    assert caught.value.code == "context_length_exceeded"
    assert f"to {context - 5} tokens" in caught.value.message


def test_the_fix_holds_where_the_input_alone_is_too_long(ask, lm):
    context = lm.spec.context
    with pytest.raises(openai.BadRequestError) as caught:
        ask("prompt", "soft", context + 50, max_tokens=20)
    assert caught.value.body["message"].endswith(f"Fix: shorten the prompt to {context - 4 - 20} tokens.")
    assert ask("prompt", "soft", context - 4 - 20, max_tokens=20).usage.prompt_tokens == context - 24


def test_strength_zero_has_no_soft_tokens(served, lm):
    body = {"model": "soft", "prompt": "a" * (lm.spec.context - 1), "max_tokens": 1, "strength": 0}
    assert httpx.post(served.url + "/v1/completions", json=body).status_code == 200
    assert httpx.post(served.url + "/v1/completions", json=body | {"strength": 1}).status_code == 400


def test_an_input_of_the_whole_context_is_scored(ask, lm):
    context = lm.spec.context
    for model, length in (("tiny", context), ("soft", context - 4)):
        output = ask("prompt", model, length, max_tokens=0, echo=True, logprobs=0)
        assert len(output.choices[0].logprobs.tokens) == length and output.usage.completion_tokens == 0
        with pytest.raises(openai.BadRequestError):
            ask("prompt", model, length + 1, max_tokens=0, echo=True, logprobs=0)


def test_labels_take_their_place_too(served, lm):
    longest = max(map(len, served.engine.registry.get("mood").encoder.label_ids))
    most = lm.spec.context - 4 - longest
    ask = {"model": "mood"}
    for path, body in (("classify", {"input": "a" * most}), ("completions", {"prompt": "a" * most})):
        assert httpx.post(f"{served.url}/v1/{path}", json=ask | body).status_code == 200
        body = {name: text + "a" for name, text in body.items()}
        error = httpx.post(f"{served.url}/v1/{path}", json=ask | body).json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert (
            f"{longest} of the longest label" in error["message"] and "4 of soft tokens" in error["message"]
        )


@pytest.mark.parametrize(
    ("tokens", "soft", "label", "fix"),
    [
        (10, 0, 5001, "shorten the longest label to 246 tokens"),
        (10, 4, 5001, "shorten the longest label to 242 tokens"),  # no prompt has few enough
        (300, 0, 5001, "shorten the longest label"),
        (10, 250, 20, "use a prompt of fewer soft tokens"),
        (250, 0, 20, "shorten the row to 236 tokens"),
    ],
)
def test_who_is_to_be_shortened_for_a_label(tokens, soft, label, fix):
    with pytest.raises(ContextExceeded) as caught:
        check_fits("row", tokens, soft, label, 256, named="longest label")
    assert caught.value.fix == fix
