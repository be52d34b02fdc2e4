"""Fields that say nothing are as if they were not there; what asks for something unserved is an error."""

from __future__ import annotations

import typing

import httpx2 as httpx
import pytest
from openai.types import chat, completion_create_params
from openai.types.chat import completion_create_params as chat_params
from pydantic import ValidationError

from softprompt.serve.http.requests import ChatRequest, ClassifyRequest, CompletionRequest
from softprompt.serve.http.validation_errors import sentence

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
TEXT = {"model": "tiny", "prompt": "hi", "temperature": 0}
LABELS = {"model": "team-a/reviews", "input": "fun"}
SCHEMAS = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/classify": ClassifyRequest,
}
BODIES = {"/v1/chat/completions": CHAT, "/v1/completions": TEXT, "/v1/classify": LABELS}

#: Of OpenAI's and other servers' fields, the values that are so without them.
DEFAULTS = {
    "tool_choice": "none", "parallel_tool_calls": True, "function_call": "auto", "service_tier": "auto",
    "store": False, "modalities": ["text"], "response_format": {"type": "text"},
    "reasoning_effort": "none", "verbosity": "medium", "min_p": 0, "repetition_penalty": 1.0,
    "length_penalty": 1.0, "top_k": -1, "use_beam_search": False, "best_of": 1,
    "skip_special_tokens": True, "spaces_between_special_tokens": True,
    "include_stop_str_in_output": False, "ignore_eos": False, "min_tokens": 0, "priority": 0,
    "return_token_ids": False, "return_tokens_as_token_ids": False, "include_reasoning": True, "n": 1,
    "frequency_penalty": 0, "presence_penalty": 0.0, "stream": False, "top_p": 1, "typical_p": 1.0,
    "mirostat": 0, "repeat_penalty": 1, "echo": False, "logprobs": False, "top_logprobs": 0,
}  # fmt: skip
EMPTY = {
    "tools": [], "functions": [], "stop": "", "stop_token_ids": [], "bad_words": [], "logit_bias": {},
    "metadata": {}, "user": "", "suffix": "", "chat_template_kwargs": {}, "documents": [],
    "vllm_xargs": {}, "guided_choice": [], "guided_regex": "", "stream_options": {}, "audio": {},
    "response_format": {}, "rendering": "",
}  # fmt: skip
#: Values that ask for something.
ASKING = {
    "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required", "store": True,
    "functions": [{"name": "f"}], "function_call": {"name": "f"},
    "response_format": {"type": "json_object"}, "modalities": ["text", "audio"],
    "audio": {"voice": "alloy"}, "reasoning_effort": "high", "verbosity": "low", "service_tier": "flex",
    "prediction": {"type": "content", "content": "x"}, "web_search_options": {}, "min_p": 0.1,
    "use_beam_search": True, "stop_token_ids": [5], "skip_special_tokens": False, "guided_json": {},
    "structured_outputs": {"choice": ["a"]}, "chat_template": "x",
    "chat_template_kwargs": {"enable_thinking": False}, "prompt_logprobs": 0, "return_token_ids": True,
    "store ": None, "min_p ": 0, "continue_final_message": True, "moderation": {"model": "m"},
    "kv_transfer_params": {}, "suffix": "x", "echo ": False, "length_penalty": 2,
}  # fmt: skip


def names(*types) -> list[str]:
    """Of the fields that a client's own types have."""
    found = [getattr(one, "model_fields", None) or typing.get_type_hints(one) for one in types]
    return sorted({name for fields in found for name in fields} - {"model"})


@pytest.fixture(scope="module")
def http(one):
    with httpx.Client(base_url=one.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def one(talker):
    from tests.serve.http.conftest import RECIPES, Running
    from tests.serve.http.fake_engine import FakeEngine, FakeRegistry

    from softprompt.serve.http import create_app

    engine = FakeEngine(talker.tokenizer)
    registry = FakeRegistry(talker, RECIPES)
    app = create_app(engine, registry, model_name="tiny", tokenizer=talker.tokenizer, context=256)
    running = Running(app, engine, 1.0)
    yield running
    running.stop()


def answer(http, path, **more):
    reply = http.post(path, json={**BODIES[path], **more})
    assert reply.status_code == 200, (more, reply.text)
    output = reply.json()
    return output["data"] if path == "/v1/classify" else output["choices"]


def refused(http, path, body):
    reply = http.post(path, json=body)
    assert reply.status_code == 400, (body, reply.text)
    return reply.json()["error"]


@pytest.mark.parametrize("path", BODIES)
def test_what_says_nothing_is_as_if_it_were_not_there(http, path):
    """One by one and all together; `logprobs` apart, since a chat's is not a completion's."""
    plain = answer(http, path)
    fields = names(
        chat_params.CompletionCreateParamsBase, completion_create_params.CompletionCreateParamsBase
    )
    assert len(fields) > 35
    nulls = {name: None for name in [*fields, *DEFAULTS, *EMPTY] if name not in BODIES[path]}
    for given in (nulls, DEFAULTS, EMPTY):
        assert answer(http, path, **given) == plain
        for name, value in given.items():
            assert answer(http, path, **{name: value}) == plain


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", ASKING)
def test_what_asks_for_something_is_refused_by_name(http, path, name):
    error = refused(http, path, {**BODIES[path], name: ASKING[name]})
    assert error["param"] == name and name in error["message"]
    unknown = name.endswith(" ")
    assert error["code"] == ("unknown_parameter" if unknown else "unsupported_parameter")


def test_true_and_one_are_not_the_same(http):
    for name, value in (("store", 0), ("min_p", False), ("skip_special_tokens", 1), ("best_of", True)):
        assert refused(http, "/v1/chat/completions", {**CHAT, name: value})["param"] == name


PARAMS = {
    "assistant": chat.ChatCompletionAssistantMessageParam,
    "user": chat.ChatCompletionUserMessageParam,
    "system": chat.ChatCompletionSystemMessageParam,
    "developer": chat.ChatCompletionDeveloperMessageParam,
}


@pytest.mark.parametrize("role", PARAMS)
def test_of_a_message_too(http, role):
    own = names(PARAMS[role], chat.ParsedChatCompletionMessage)
    nulls = {name: None for name in own if name not in ("role", "content")}
    more = {
        "tool_calls": [], "annotations": [], "reasoning_content": None, "reasoning": "", "type": "text",
        "name": "", "refusal": "", "tool_call_id": None, "provider_specific_fields": {}, "prefix": False,
    }  # fmt: skip
    last = {"role": "user", "content": "so?"}
    plain = answer(http, "/v1/chat/completions", messages=[{"role": role, "content": "x"}, last])
    for given in (nulls, more, *({name: value} for name, value in [*nulls.items(), *more.items()])):
        messages = [{"role": role, "content": "x", **given}, last]
        assert answer(http, "/v1/chat/completions", messages=messages) == plain
    for name, value in (("tool_calls", [{"id": "x"}]), ("reasoning_content", "hm"), ("refusal", "no")):
        error = refused(
            http, "/v1/chat/completions", {**CHAT, "messages": [{"role": role, "content": "x", name: value}]}
        )
        assert error["param"] == f"messages.0.{name}" and error["code"] == "unsupported_parameter"


def test_an_answer_without_text_is_an_empty_one(http):
    last = {"role": "user", "content": "so?"}
    empty = answer(http, "/v1/chat/completions", messages=[{"role": "assistant", "content": ""}, last])
    for given in ({}, {"content": None}, {"content": []}):
        output = answer(http, "/v1/chat/completions", messages=[{"role": "assistant", **given}, last])
        assert output == empty
        error = refused(http, "/v1/chat/completions", {**CHAT, "messages": [{"role": "user", **given}]})
        assert error["param"] == "messages.0.content"


def test_a_part_of_a_message_too(http):
    part = {"type": "text", "text": "hi"}
    nulls = dict.fromkeys(set(names(chat.ChatCompletionContentPartTextParam)) - {"type", "text"})
    for more in (nulls, {"annotations": [], "cache_control": None}):
        output = answer(
            http, "/v1/chat/completions", messages=[{"role": "user", "content": [{**part, **more}]}]
        )
        assert output == answer(http, "/v1/chat/completions")


def test_options_of_a_stream_that_say_nothing_need_no_stream(http):
    for options in ({"include_usage": None}, {"include_usage": False, "continuous_usage_stats": False}):
        for stream in ({}, {"stream": False}, {"stream": None}):
            answer(http, "/v1/completions", stream_options=options, **stream)
    for options in ({"include_usage": True}, {"continuous_usage_stats": True}):
        assert (
            refused(http, "/v1/completions", {**TEXT, "stream_options": options})["param"] == "stream_options"
        )
    error = refused(
        http, "/v1/completions", {**TEXT, "stream": True, "stream_options": {"include_obfuscation": True}}
    )
    assert error["param"] == "stream_options.include_obfuscation"


def test_what_is_empty_within_a_row_is_a_value(http):
    body = {"model": "team-a/pairs", "row": {"first": "", "second": "b"}, "temperature": 0, "max_tokens": 60}
    reply = http.post("/v1/completions", json=body).json()
    assert reply["choices"][0]["text"] == "team-a/pairs[1]: / b"
    assert refused(http, "/v1/completions", {"model": "tiny", "row": {"text": None}})["param"] == "row"


def test_an_empty_prompt_beside_a_row_says_nothing(http):
    body = {"model": "team-a/pairs", "row": {"first": "a", "second": "b"}, "temperature": 0}
    plain = http.post("/v1/completions", json=body).json()["choices"]
    assert http.post("/v1/completions", json={**body, "prompt": ""}).json()["choices"] == plain
    assert refused(http, "/v1/completions", {**body, "prompt": "x"})["param"] == "prompt"
    assert answer(http, "/v1/completions", prompt="")[0]["text"].startswith("plain[1]:")  # alone it is a text


def test_no_probability_at_all_keeps_the_likeliest_token(one, http):
    for path in ("/v1/completions", "/v1/chat/completions"):
        answer(http, path, top_p=0, top_k=7, temperature=1)
        how = one.engine.requests[-1].sampling
        assert (how.top_p, how.top_k) == (1.0, 1)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("reported", [True, False])
def test_usage_so_far(one, path, reported):
    import openai

    client = openai.OpenAI(base_url=one.url + "/v1", api_key="x", max_retries=0)
    create = client.completions.create if "chat" not in path else client.chat.completions.create
    body = {**BODIES[path], "n": 2, "max_tokens": 6}
    options = {"include_usage": reported, "continuous_usage_stats": True}
    *chunks, last = create(**body, stream=True, stream_options=options)
    whole = create(**body).usage
    if reported:
        assert last.choices == [] and last.usage == whole
    else:
        chunks.append(last)
    output = [chunk.usage.completion_tokens for chunk in chunks]
    assert output == sorted(output) and output[-1] == whole.completion_tokens and len(set(output)) > 6
    assert {chunk.usage.prompt_tokens for chunk in chunks} == {whole.prompt_tokens}
    assert all(
        chunk.usage.total_tokens == whole.prompt_tokens + n for chunk, n in zip(chunks, output, strict=True)
    )


# --- mistakes ---


def output(role, content):
    return {"messages": [{"role": role, "content": content}]}


@pytest.mark.parametrize(
    ("path", "more", "param", "part"),
    [
        ("/v1/completions", {"stop": ["x"] * 17}, "stop", "at most 16 "),
        ("/v1/completions", {"stop": [""]}, "stop.0", "must not be empty"),
        ("/v1/completions", {"stop": "x" * 300}, "stop", "at most 256 characters"),
        ("/v1/completions", {"stop": ["a", "x" * 300]}, "stop.1", "at most 256 characters"),
        ("/v1/completions", {"stop": 5}, "stop", "a string or a list"),
        ("/v1/completions", {"stop": [5]}, "stop.0", "a string"),
        ("/v1/completions", {"prompt": []}, "prompt", "must not be empty"),
        ("/v1/completions", {"prompt": ["a", 1]}, "prompt.1", "a string"),
        ("/v1/completions", {"prompt": [1, "a"]}, "prompt.1", "a whole number"),
        ("/v1/completions", {"prompt": [[1], ["a"]]}, "prompt.1.0", "a whole number"),
        ("/v1/completions", {"prompt": [[]]}, "prompt.0", "must not be empty"),
        ("/v1/completions", {"prompt": [-1]}, "prompt.0", "at least 0, not -1"),
        ("/v1/completions", {"prompt": {"text": "x"}}, "prompt", "a string or a list"),
        ("/v1/completions", {"prompt": [None]}, "prompt.0", "null"),
        ("/v1/completions", {"logprobs": True}, "logprobs", "a whole number"),
        ("/v1/completions", {"logprobs": 6}, "logprobs", "at most 5, not 6"),
        ("/v1/completions", {"logit_bias": {"x": 1}}, "logit_bias", "token ids"),
        ("/v1/completions", {"logit_bias": {"5": 101}}, "logit_bias.5", "at most 100, not 101"),
        ("/v1/completions", {"temperature": 3}, "temperature", "at most 2, not 3"),
        ("/v1/completions", {"stream_options": {"x": 1}}, "stream_options.x", "Unknown field"),
        ("/v1/completions", {"best_of": 3}, "best_of", "not supported"),
        ("/v1/completions", {"model": None}, "model", "is missing"),
        ("/v1/chat/completions", {"messages": []}, "messages", "must not be empty"),
        ("/v1/chat/completions", {"messages": ["x"]}, "messages.0", "an object"),
        ("/v1/chat/completions", {"messages": "x"}, "messages", "a list"),
        ("/v1/chat/completions", output("tool", "x"), "messages.0.role", "'assistant'"),
        ("/v1/chat/completions", output("user", 5), "messages.0.content", "a string or a list"),
        ("/v1/chat/completions", output("user", ["x"]), "messages.0.content.0", "an object"),
        ("/v1/classify", {"input": []}, "input", "must not be empty"),
        ("/v1/classify", {"input": {}}, "input", "must not be empty"),
        ("/v1/classify", {"input": ["a", 1]}, "input.1", "a string or an object"),
        ("/v1/classify", {"input": 5}, "input", "a string, an object or a list"),
        ("/v1/classify", {"input": [{"text": "x"}, {}]}, "input.1", "must not be empty"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_as_the_type_that_was_meant(http, path, more, param, part):
    error = refused(http, path, {**BODIES[path], **more})
    assert error["param"] == param and part in error["message"] and param in error["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/classify", {"model": "team-a/reviews", "input": {"txt": "x"}}, "input"),
        ("/v1/classify", {"model": "team-a/reviews", "input": ["x", {"txt": "x"}]}, "input.1"),
        ("/v1/classify", {"model": "team-a/pairs", "input": "x"}, "model"),
        ("/v1/completions", {"model": "team-a/pairs", "row": {"first": "x"}}, "row"),
        ("/v1/chat/completions", {**CHAT, "max_completion_tokens": 5000}, "max_completion_tokens"),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 5000}, "max_tokens"),
    ],
)
def test_a_mistake_that_is_found_later_names_its_field(http, path, body, param):
    assert refused(http, path, body)["param"] == param


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "x"}},
        {"type": "refusal", "refusal": "no"},
        {"type": "video_url"},
    ],
)
def test_what_is_no_text_is_called_by_its_type(http, part):
    content = [{"type": "text", "text": "hi"}, part]
    error = refused(
        http, "/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": content}]}
    )
    output = f"messages.0.content.1: {part['type']} is not supported, text alone."
    assert error["message"] == output and error["param"] == "messages.0.content.1"


@pytest.mark.parametrize("path", BODIES)
def test_no_mistake_is_told_in_words_of_the_code(path):
    """A value of each of JSON's types in every field: the message begins with the field."""
    schema = SCHEMAS[path]
    assert len(schema.model_fields) > 100
    odd = (5, -1.5, True, "x", "", [], {}, [5], ["x"], [[]], {"x": 5}, [{"x": [5]}], [None], None)
    mistakes = 0
    for field in schema.model_fields:
        for value in odd:
            try:
                schema.model_validate({**BODIES[path], field: value})
            except ValidationError as error:
                where, output = sentence(error.errors()[0])
            else:
                continue
            mistakes += 1
            assert where[0] == field, (field, value, output)
            assert output.startswith(
                ("must ", "at most ", "is missing", "not supported: ", "its keys ", "is not a field")
            ), output
    assert mistakes > 500
