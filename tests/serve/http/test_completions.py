"""/v1/completions with the real `openai` client against a real server."""

from __future__ import annotations

import httpx2 as httpx
import openai
import pytest


def test_a_text_is_read_as_it_is(served, client, talker):
    output = client.completions.create(model="tiny", prompt="what a film", max_tokens=100, temperature=0)
    assert output.choices[0].text == "plain[1]:what a film" and output.choices[0].finish_reason == "stop"
    assert served.engine.requests[0].input_ids == tuple(talker.tokenizer("what a film")["input_ids"])
    used = output.usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (11, 20, 31)
    assert used.prompt_vectors == 0 and output.system_fingerprint is None


def test_a_prompt_does_not_template_a_text_but_a_row(client):
    raw = client.completions.create(model="team-a/pairs", prompt="x", max_tokens=100, temperature=0)
    assert raw.choices[0].text == "team-a/pairs[1]:x" and raw.softprompt["rendering"] == "text"
    row = {"row": {"first": "a", "second": "b"}}
    output = client.completions.create(
        model="team-a/pairs", prompt=None, extra_body=row, max_tokens=100, temperature=0
    )
    assert output.choices[0].text == "team-a/pairs[1]:a / b" and output.softprompt["rendering"] == "template"
    assert output.usage.prompt_vectors == 5 and output.system_fingerprint == "0f" * 8


def test_token_ids_and_several_prompts(client, talker):
    ids = talker.tokenizer("hello")["input_ids"]
    one = client.completions.create(model="tiny", prompt=ids, max_tokens=100, temperature=0)
    assert one.choices[0].text == "plain[1]:hello"
    many = client.completions.create(model="tiny", prompt=["ab", "c"], n=2, max_tokens=100, temperature=0)
    assert [c.text for c in many.choices] == ["plain[1]:ab"] * 2 + ["plain[1]:c"] * 2
    assert [c.index for c in many.choices] == [0, 1, 2, 3]
    assert many.usage.prompt_tokens == 3  # an input counts once, however many choices it has
    nested = client.completions.create(model="tiny", prompt=[ids, ids[:1]], max_tokens=100, temperature=0)
    assert [c.text for c in nested.choices] == ["plain[1]:hello", "plain[1]:h"]


def test_sampling_options_reach_the_engine(served, client):
    client.completions.create(
        model="tiny", prompt="x", max_tokens=7, temperature=0.5, top_p=0.9, seed=11, stop=["!", "?"], n=2,
        frequency_penalty=0.25, presence_penalty=-0.5, logit_bias={"5": -100}, logprobs=3,
        extra_body={"top_k": 4, "min_tokens": 2, "ignore_eos": True, "strength": 1.5},
    )  # fmt: skip
    first, second = (request.sampling for request in served.engine.requests)
    assert (first.max_tokens, first.temperature, first.top_p, first.top_k) == (7, 0.5, 0.9, 4)
    assert (first.frequency_penalty, first.presence_penalty, first.logit_bias) == (0.25, -0.5, {5: -100.0})
    assert (first.stop, first.logprobs, first.min_tokens, first.ignore_eos) == (("!", "?"), 3, 2, True)
    assert (first.seed, second.seed) == (11, 12)  # each choice draws for itself
    assert {request.scale for request in served.engine.requests} == {1.5}


def test_what_is_not_said_is_as_openai_has_it(served, client):
    client.completions.create(model="tiny", prompt="x")
    client.completions.create(model="team-a/voices:joke", prompt="x")
    plain, tuned = (request.sampling for request in served.engine.requests)
    assert (plain.temperature, plain.top_p, plain.top_k, plain.seed, plain.stop) == (1.0, 1.0, 0, None, ())
    assert plain.max_tokens == 16 and tuned.max_tokens == 40  # a prompt's own, from its recipe


def test_a_seed_repeats(client):
    def ask(seed):
        return client.completions.create(model="tiny", prompt="x", seed=seed, max_tokens=50).choices[0].text

    assert ask(3) == ask(3) != ask(4)


def test_stop_strings_and_length(client):
    ask = {"model": "tiny", "prompt": "abcdef", "temperature": 0}
    stopped = client.completions.create(**ask, stop="cd", max_tokens=99).choices[0]
    assert (stopped.text, stopped.finish_reason) == ("plain[1]:ab", "stop")
    short = client.completions.create(**ask, max_tokens=4).choices[0]
    assert (short.text, short.finish_reason) == ("plai", "length")


def test_log_probabilities_and_echo(client):
    ask = {"model": "tiny", "prompt": "ab", "temperature": 0, "echo": True, "logprobs": 2}
    output = client.completions.create(**ask, max_tokens=3).choices[0]
    assert output.text == "abpla"
    found = output.logprobs
    assert found.tokens == ["a", "b", "p", "l", "a"] and found.text_offset == [0, 1, 2, 3, 4]
    assert found.token_logprobs == [None, -0.5, -0.25, -0.25, -0.25]
    assert found.top_logprobs[0] is None and found.top_logprobs[1] == {"b": -0.5, "!": -1.5}


def test_an_input_is_scored_without_an_answer(client):
    ask = {"model": "tiny", "prompt": "ab", "temperature": 0, "echo": True, "logprobs": 0, "max_tokens": 0}
    output = client.completions.create(**ask)
    assert output.choices[0].text == "ab" and output.choices[0].logprobs.tokens == ["a", "b"]
    assert output.usage.completion_tokens == 0 and output.choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError, match="echo"):
        client.completions.create(model="tiny", prompt="ab", max_tokens=0)


def test_streaming_says_what_the_whole_says(client):
    ask = {"model": "tiny", "prompt": ["ab", "c"], "temperature": 0, "max_tokens": 30, "echo": True}
    whole = client.completions.create(**ask)
    texts, ends, last = ["", ""], {}, None
    for chunk in client.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        last = chunk
        for choice in chunk.choices:
            assert chunk.usage is None
            texts[choice.index] += choice.text
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices] and ends == {0: "stop", 1: "stop"}
    assert last.choices == [] and last.usage == whole.usage


def test_a_stream_ends_with_done(served):
    body = {"model": "tiny", "prompt": "x", "stream": True}
    with httpx.stream("POST", served.url + "/v1/completions", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    assert all('"usage"' not in line for line in lines)  # asked for or not there


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"row": {"a": 1}}, "prompt"),
        ({"prompt": None, "row": {"a": 1}}, "row"),
        ({"prompt": [999]}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": 100}, "n"),
        ({"prompt": ["x"] * 100}, "prompt"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"max_tokens": 5000}, "max_tokens"),
        ({"max_tokens": "7"}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"logit_bias": {"999": 1}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, None),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
        ({"kv_transfer_params": {}}, "kv_transfer_params"),
        ({"cache_salt": "x"}, "cache_salt"),
        ({"temprature": 0}, "temprature"),
        ({"prompt": "x" * 300}, None),
    ],
)
def test_what_cannot_be_answered_is_a_400_that_names_the_field(served, client, more, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", **({"prompt": "x"} | {"extra_body": more}))
    error = caught.value.body
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert param is None or error["param"] == param
    assert "xxxx" not in error["message"]
    assert served.engine.requests == []


def test_a_prompt_that_is_not_there_or_not_whole(client):
    for name in ("no/such", "../etc/passwd", "/etc/passwd", "team-a/voices:song"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.completions.create(model=name, prompt="x")
        assert caught.value.code == "model_not_found" and "secret" not in str(caught.value)
    with pytest.raises(openai.BadRequestError, match="name one, such as `team-a/voices:joke`"):
        client.completions.create(model="team-a/voices", prompt="x")
    with pytest.raises(openai.UnprocessableEntityError) as broken:
        client.completions.create(model="team-b/broken", prompt="x")
    assert broken.value.code == "prompt_broken" and "secret" not in str(broken.value)
