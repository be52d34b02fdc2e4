"""Answers of given tokens through the real server: their text, their names, and their places."""

from __future__ import annotations

import openai
import pytest
from tests.serve.http.conftest import serving
from tests.serve.http.vocabularies import VOCABULARIES

from softprompt.lm.causal import CausalLM

PROMPT = "the capital of France is"
ANSWER = " Paris, naïve 🙂 and\n  two"


@pytest.fixture(scope="module", params=VOCABULARIES)
def lm(request, new_lm):
    tokenizer = VOCABULARIES[request.param]()
    return CausalLM(new_lm("llama", vocab_size=len(tokenizer) + 3).model, tokenizer, "tiny")


@pytest.fixture(scope="module")
def served(lm, tmp_path_factory, publish):
    folder = tmp_path_factory.mktemp("prompts")
    publish(lm, folder / "soft", "prompt-tuning", {"length": 2, "placement": "before"})
    with serving(lm, folder) as running:
        yield running


@pytest.fixture
def client(served):
    return openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0)


@pytest.fixture
def says(monkeypatch):
    """`says(ids)`: what every row answers, whatever the model makes of its input."""

    def script(ids):
        def choose(logits, choosers):
            return [ids[min(chooser.length, len(ids) - 1)] for chooser in choosers]

        monkeypatch.setattr("softprompt.serve.scheduler.choose", choose)
        return len(ids)

    return script


def going_on(lm, prompt, text):
    """Ids of a text behind another one."""
    both, first = (lm.tokenizer(t)["input_ids"] for t in (prompt + text, prompt))
    assert both[: len(first)] == first
    return both[len(first) :]


def complete(client, count, **more):
    ask = {"model": "soft", "prompt": PROMPT, "max_tokens": count, "temperature": 0}
    return client.completions.create(**(ask | more))


def streamed(client, count, **more):
    return "".join(c.choices[0].text for c in complete(client, count, stream=True, **more))


def test_an_answer_goes_on_in_its_inputs_text(lm, client, says):
    count = says(going_on(lm, PROMPT, ANSWER))
    assert complete(client, count).choices[0].text == ANSWER
    assert streamed(client, count) == ANSWER
    assert complete(client, count, echo=True).choices[0].text == PROMPT + ANSWER
    assert streamed(client, count, echo=True) == PROMPT + ANSWER
    ids = lm.tokenizer(PROMPT)["input_ids"]
    assert complete(client, count, prompt=ids).choices[0].text == ANSWER


def test_going_on_token_by_token_loses_nothing(lm, client, says):
    ids, text = going_on(lm, PROMPT, " one two and Paris"), PROMPT
    for id in ids:
        says([id])
        text += complete(client, 1, prompt=text).choices[0].text
    assert text == PROMPT + " one two and Paris"


def test_a_stop_string_begins_with_its_space(lm, client, says):
    count = says(going_on(lm, PROMPT, " one Paris two"))
    output = complete(client, count, stop=" Paris").choices[0]
    assert (output.text, output.finish_reason) == (" one", "stop")
    says(going_on(lm, PROMPT, " Paris two"))
    output = complete(client, 3, stop=[" Paris"]).choices[0]
    assert (output.text, output.finish_reason) == ("", "stop")


@pytest.mark.parametrize("prompt", [PROMPT, "naïve 🙂  x"])
@pytest.mark.parametrize("echo", [False, True])
def test_names_and_places_of_tokens(lm, client, says, prompt, echo):
    ids, own = lm.tokenizer(prompt)["input_ids"], going_on(lm, prompt, ANSWER)
    begins = [lm.tokenizer.bos_token_id] if ids[0] == lm.tokenizer.bos_token_id else []
    count, all_ids = says(own), [*ids[len(begins) :], *own]
    output = complete(client, count, prompt=prompt, echo=echo, logprobs=2).choices[0]
    found, hidden = output.logprobs, 0 if echo else len(prompt)
    assert output.text == (prompt + ANSWER)[hidden:]
    if echo and begins:  # a token that is not in the text
        assert (found.tokens.pop(0), found.text_offset.pop(0)) == ("<s>", 0)
        assert found.token_logprobs.pop(0) is None and found.top_logprobs.pop(0) is None
    first = 0 if echo else len(ids) - len(begins)
    assert len(found.tokens) == len(all_ids) - first
    for n, (name, offset) in enumerate(zip(found.tokens, found.text_offset, strict=True), first):
        # the text that so many tokens complete
        shown, after = (lm.tokenizer.decode(all_ids[:k]).rstrip("\ufffd") for k in (n, n + 1))
        assert offset == len(shown) - hidden
        assert "\\x" in name or after.endswith(name)
    parts = list(complete(client, count, prompt=prompt, echo=echo, logprobs=2, stream=True))
    for field in ("tokens", "text_offset"):
        together = [one for part in parts for one in getattr(part.choices[0].logprobs, field)]
        assert together[len(begins) if echo else 0 :] == getattr(found, field)
    assert all(top is None or len(top) == 2 for top in found.top_logprobs)


def test_places_beside_a_control_token_that_was_sent(lm, client, says):
    says(going_on(lm, "the", " two"))
    ask = {"prompt": "the<|end|>one", "echo": True, "logprobs": 0}
    found = complete(client, 1, **ask).choices[0].logprobs
    at = found.tokens.index("<|end|>")
    assert found.text_offset[at : at + 2] == [3, 10] and found.tokens[at - 1] == "the"
    assert found.text_offset[-1] == 13
    scored = complete(client, 0, **ask).choices[0]
    assert scored.text == "the<|end|>one" and scored.logprobs.text_offset == found.text_offset[:-1]


def test_bytes_of_a_chats_tokens_make_its_text(lm, client, says):
    count = says([*going_on(lm, "x", " naïve 🙂 and"), lm.tokenizer.eos_token_id])
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": count}
    output = client.chat.completions.create(**ask, logprobs=True, top_logprobs=3).choices[0]
    content = output.logprobs.content
    assert output.finish_reason == "stop" and len(content) == count
    assert bytes(b for one in content for b in one.bytes or ()).decode() == output.message.content
    assert content[-1].token == "</s>" and content[-1].bytes is None
    assert [one.token for one in content if "\\x" in one.token]  # parts of characters are named by bytes
    for one in content:
        if "\\x" in one.token:
            assert one.bytes == list(one.token.encode("latin-1").decode("unicode_escape").encode("latin-1"))
    parts = list(client.chat.completions.create(**ask, logprobs=True, top_logprobs=3, stream=True))
    messages = [part.choices[0].logprobs.content for part in parts if part.choices[0].logprobs]
    assert [one.token for some in messages for one in some] == [one.token for one in content]


def test_a_chats_answer_is_a_text_of_its_own(lm, client, says):
    """A tokenizer that puts a space before a text takes it away again."""
    ids = lm.tokenizer("Paris and", add_special_tokens=False)["input_ids"]
    count = says(ids)
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": count}
    assert client.chat.completions.create(**ask).choices[0].message.content == "Paris and"


def test_ids_that_end_within_a_character(lm, client, says):
    ids = going_on(lm, "x", " 🙂")
    assert len(ids) >= 4
    says(ids[-2:])
    ask = {"prompt": lm.tokenizer("x")["input_ids"] + ids[:-2]}
    assert complete(client, 2, **ask).choices[0].text == "🙂"
    assert complete(client, 2, **ask, echo=True).choices[0].text.endswith("x 🙂")


@pytest.mark.parametrize("ignored", [False, True])
def test_a_stop_string_that_is_a_control_token(lm, client, says, ignored):
    control = lm.tokenizer.convert_tokens_to_ids
    text = going_on(lm, PROMPT, " one two")
    for name in ("<|end|>", "</s>"):
        says([*text, control(name), *text])
        output = complete(client, 20, stop=[name], extra_body={"ignore_eos": ignored}).choices[0]
        assert (output.text, output.finish_reason) == (" one two", "stop")
        assert streamed(client, 20, stop=[name], extra_body={"ignore_eos": ignored}) == " one two"


def test_a_stop_string_with_a_control_token_amid_text(lm, client, says):
    end, start = lm.tokenizer.convert_tokens_to_ids(["<|end|>", "<|start|>"])
    one, two = going_on(lm, PROMPT, " one"), going_on(lm, PROMPT, " two")
    says([*one, end, *two, end, start, *one])
    for stop, expected in (
        ("two<|end|>", " one "),
        ("<|end|><|start|>", " one two"),
        ("one<|end|> two", " "),
        ("<|end|>x", None),
        ("<|end|> two<|end|><|start|> one", " one"),
    ):
        output = complete(client, 9, stop=stop).choices[0]
        if expected is None:
            assert output.finish_reason == "length" and output.text.startswith(" one two one")
        else:
            assert (output.text, output.finish_reason) == (expected, "stop"), stop


def test_a_control_token_does_not_part_what_stands_around_it(lm, client, says):
    end = lm.tokenizer.convert_tokens_to_ids("<|end|>")
    one, two = going_on(lm, PROMPT, " one"), going_on(lm, PROMPT, " two")
    says([end, *one, end, *two])
    assert complete(client, 2 + len(one) + len(two)).choices[0].text == " one two"


def test_no_stop_string_is_looked_for_before_min_tokens(lm, client, says):
    ids = going_on(lm, PROMPT, " one two one two")
    says(ids)
    half = len(ids) // 2
    output = complete(client, len(ids), stop=" two", extra_body={"min_tokens": half}).choices[0]
    assert (output.text, output.finish_reason) == (" one two one", "stop")
