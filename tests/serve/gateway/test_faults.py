"""A vLLM that misbehaves: what a client of the gateway gets, what the log says, and what is not lost.

The stand-in is a server on a loopback port; the client is the real `openai` one.
"""

from __future__ import annotations

import email.utils
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import httpx2
import openai
import pytest
from tests.serve.gateway.standin import MODELS, StandIn, chunk, cut, event, in_turn
from tests.serve.http.conftest import Running

from softprompt import methods
from softprompt.artifacts.interop import foreign
from softprompt.artifacts.interop.kv_cache.batch import compile_all, sources
from softprompt.artifacts.manifest import text_of
from softprompt.errors import SoftPromptError
from softprompt.methods.base import Setting
from softprompt.serve.gateway.client import Vllm
from softprompt.serve.gateway.engine import VllmEngine
from softprompt.serve.gateway.faults import retry_after
from softprompt.serve.gateway.registry import CompiledRegistry
from softprompt.serve.http import create_app
from softprompt.serve.http.limits import Limits
from softprompt.serve.http.server import LOOPBACK_NAMES

KEY = "sk-of-vllm"
HTML = "<html><head><title>502 Bad Gateway</title></head><body><h1>upstream &amp; gone</h1></body></html>"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, llama):
    """A prefix, and one that classifies."""
    root = tmp_path_factory.mktemp("prompts")
    for name in ("style", "mood"):
        options = {"length": 3, "placement": "before"}
        built = methods.build("prefix-tuning", Setting(llama, ("default",)), {**options, "init": "vocab"})
        foreign.save(root / name, llama, "prefix-tuning", options, built.state_dict(), ("default",), "a test")
    file = root / "mood" / "softprompt.json"
    manifest = json.loads(file.read_text())
    manifest["recipe"]["task"] = {"kind": "classification", "labels": ["good", "bad"]}
    file.write_text(text_of({**manifest, "labels": ["good", "bad"]}))
    assert len(list(compile_all(sources([root]), llama, root / "compiled"))) == 2
    return root / "compiled"


@pytest.fixture
def vllm():
    made = StandIn()
    yield made
    made.close()


@pytest.fixture
def gateway(compiled, llama, vllm):
    """`gateway(**Limits)`: a running one."""
    running = []

    def start(**limits):
        registry = CompiledRegistry(compiled, llama.tokenizer, 256)
        engine = VllmEngine(Vllm(vllm.url, KEY), registry, "base", llama.tokenizer)
        app = create_app(
            engine, registry, model_name="tiny", tokenizer=llama.tokenizer, context=256,
            hosts=LOOPBACK_NAMES, limits=Limits(**limits),
        )  # fmt: skip
        running.append(Running(app, engine, 0.5))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def client(gateway):
    return openai.OpenAI(base_url=gateway().url + "/v1", api_key="none", max_retries=0)


def ask(client, stream=False, **more):
    """Text and the reason for its end."""
    output = client.completions.create(model="style", prompt="hi", temperature=0, stream=stream, **more)
    if not stream:
        return output.choices[0].text, output.choices[0].finish_reason
    choices = [choice for part in output for choice in part.choices]
    return "".join(choice.text for choice in choices), choices[-1].finish_reason


def log_lines(caplog):
    """Of the gateway, without the line that each request has."""
    return [r.getMessage() for r in caplog.records if r.name == "softprompt.serve" and r.levelname != "INFO"]


FAILED, BUSY, AWAY, LARGE = "engine_failed", "engine_busy", "engine_unavailable", "request_too_large"
LONG = "This model's maximum context length is 512 tokens."
EMBEDS = "You must set `--enable-prompt-embeds` to input `prompt_embeds`."
GONE = "The model `base` does not exist."
# what vLLM says: status, content, Retry-After; what the client gets: status, code, Retry-After, and words
REFUSALS = [
    (400, {"error": {"message": "logprobs is too large"}}, None, 400, None, None, ["logprobs is too large"]),
    (400, {"object": "error", "message": "too long", "code": 400}, None, 400, None, None, ["too long"]),
    (400, {"error": {"message": LONG}}, None, 400, "context_length_exceeded", None, [LONG]),
    (400, {"error": {"message": EMBEDS}}, None, 502, FAILED, None, ["--enable-prompt-embeds"]),
    (400, HTML, None, 502, FAILED, None, ["400", "upstream & gone"]),
    (401, {"error": f"Unauthorized: {KEY}"}, None, 502, FAILED, None, ["401", "SOFTPROMPT_VLLM_KEY", "***"]),
    (403, {"error": "no"}, None, 502, FAILED, None, ["403", "SOFTPROMPT_VLLM_KEY"]),
    (404, {"error": {"message": GONE}}, None, 502, FAILED, None, ["404", GONE, "--served-model-name"]),
    (413, HTML, None, 413, LARGE, None, ["413"]),
    (429, {"error": {"message": "slow down"}}, "7", 429, BUSY, "7", ["429", "slow down"]),
    (429, "", None, 429, BUSY, "1", ["429"]),
    (500, {"error": {"message": "CUDA error"}}, None, 502, FAILED, None, ["500", "CUDA error"]),
    (502, HTML, None, 502, FAILED, None, ["502", "upstream & gone"]),
    (503, {"error": "asleep"}, "9", 503, AWAY, "9", ["503", "asleep"]),
    (503, HTML, None, 503, AWAY, "5", ["503"]),
    (504, HTML, None, 502, FAILED, None, ["504"]),
    (302, "", None, 502, FAILED, None, ["302"]),
    (200, HTML, None, 502, FAILED, None, ["text/html", "upstream & gone"]),
    (200, {"choices": []}, None, 502, FAILED, None, ["not streamed"]),
    (200, {"error": {"message": "odd", "code": 500}}, None, 502, FAILED, None, ["odd"]),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "content", "given", "messages", "code", "after", "words"), REFUSALS)
def test_a_refusal(client, vllm, caplog, stream, status, content, given, messages, code, after, words):
    headers = {} if given is None else {"Retry_After": given}
    vllm.say = lambda c: c.reply(status, content, **headers)
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, stream)
    error = caught.value
    assert error.status_code == messages and error.code == code
    assert error.response.headers.get("retry-after") == after
    for word in (*words, vllm.url, "'base'"):
        assert word in error.body["message"], word
    assert KEY not in error.response.text and "<" not in error.body["message"]
    lines = log_lines(caplog)
    if messages in (400, 413):
        assert not lines
    else:
        (line,) = lines
        assert "\n" not in line and KEY not in line
        assert all(word in line for word in (*words, vllm.url, "'base'"))


HELLO = chunk("he", 40), chunk("llo", 41)
OLD, NEW = {"object": "error", "message": "dead", "code": 500}, {"error": {"message": "dead", "code": 500}}
BROKEN = {  # after "hello" came: what vLLM does, and a word of the message
    "reset": (lambda c: (c.stream(*HELLO), time.sleep(0.05), c.reset()), "broke off"),
    "short": (lambda c: c.promise(*HELLO), "broke off"),
    "ends": (lambda c: c.stream(*HELLO), "without a reason"),
    "done": (lambda c: c.stream(*HELLO, b"data: [DONE]\n\n"), "without a reason"),
    "abort": (lambda c: c.stream(chunk("hello", 40, reason="abort")), "abort"),
    "error": (lambda c: c.stream(*HELLO, event(NEW)), "dead"),
    "old error": (lambda c: c.stream(*HELLO, event(OLD)), "dead"),
    "garbled": (lambda c: c.stream(*HELLO, b'data: {"choices": [{"te\n\n'), "no JSON"),
    "no object": (lambda c: c.stream(*HELLO, b"data: 3\n\n"), "no JSON object"),
    "odd": (lambda c: c.stream(*HELLO, event({"choices": ["x"]})), "not as expected"),
    "cut": (lambda c: c.stream(*HELLO, chunk("wörld", 41)[:45]), "cut off"),
    "not utf-8": (lambda c: c.stream(*HELLO, b'data: "\xff"\n\n'), "UTF-8"),
    "usage": (lambda c: c.stream(*HELLO, event({"choices": [], "usage": {}})), "without a reason"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", BROKEN)
def test_what_was_said_before_a_failure_is_not_lost(client, vllm, caplog, how, stream):
    say, word = BROKEN[how]
    vllm.say = say
    text = ""
    with pytest.raises(openai.APIError) as caught:
        for part in client.completions.create(model="style", prompt="hi", stream=stream):
            text += part.choices[0].text
    error = caught.value
    if not stream:
        assert error.status_code == 502
        ((number, text),) = [(one["index"], one["text"]) for one in error.body["partial"]]
        assert number == 0
    assert text == "hello" and error.code == "engine_failed"
    assert word in error.body["message"] and vllm.url in error.body["message"]
    assert "shutting down" not in error.body["message"]
    (line,) = log_lines(caplog)
    assert word in line and vllm.url in line and "hello" not in line


def test_a_stream_ends_after_its_error(client, vllm, gateway):
    vllm.say = BROKEN["abort"][0]
    body = {"model": "style", "prompt": "hi", "stream": True}
    reply = httpx2.post(gateway().url + "/v1/completions", json=body)
    *_, error, done, empty = reply.text.split("\n\n")
    assert reply.status_code == 200 and (done, empty) == ("data: [DONE]", "")
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "engine_failed"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("code", [400, 429, 503])
def test_an_error_event_before_any_text_has_its_status(client, vllm, stream, code):
    vllm.say = lambda c: c.stream(event({"error": {"message": "so it is", "code": code}}))
    with pytest.raises(openai.APIStatusError, match="so it is") as caught:
        ask(client, stream)
    assert caught.value.status_code == code


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_odd_but_whole_is_answered(client, vllm, stream, caplog):
    both, odd = b"".join(HELLO[:1]) + chunk("llo", 41, reason="length"), "né\u2028\x85\x0b日本🙂"
    for expected, pieces in {
        ("hello", "stop"): [
            [HELLO[0], chunk("llo", 41, reason="repetition")],
            [chunk("", 40), chunk("hello"), chunk("", reason="stop")],
            [chunk("hello", reason="stop")],
        ],
        ("hello", "length"): [
            [b": keep-alive\n\n", both, event({"choices": [], "usage": {}}), b"data: [DONE]\n\n"],
            [event({"choices": []}), event({"choices": None}), event({"error": None, "choices": []}), both],
            [both.replace(b"\n", b"\r\n")],
            cut(both.replace(b"\n", b"\r\n"), 1),
            [both.replace(b"data: ", b"event: x\nid: 3\ndata:")],
            [both.rstrip(b"\n")],
            [both, b"data: {garbled\n\n"],
        ],
        (odd, "stop"): [cut(chunk(odd, 40, reason="stop"), 1)],
    }.items():
        for one in pieces:
            vllm.say = lambda c, one=one: c.stream(*one)
            assert ask(client, stream) == expected
    vllm.say = lambda c: c.promise(both)  # broken, but after its end
    assert ask(client, stream) == ("hello", "length")
    (line,) = log_lines(caplog)
    assert "repetition" in line


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_counted_by_vllm_where_it_does_not_name_them(client, vllm, stream):
    usage = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}})
    options = {"stream_options": {"include_usage": True}} if stream else {}
    for last, count in ((usage, 7), (b"data: [DONE]\n\n", 2)):
        vllm.say = lambda c, last=last: c.stream(chunk("hel"), chunk("lo", reason="stop"), last)
        output = client.completions.create(model="style", prompt="hi", stream=stream, **options)
        used = list(output)[-1].usage if stream else output.usage
        assert (used.prompt_tokens, used.completion_tokens, used.prompt_vectors) == (2, count, 3)


def test_when_to_come_back_as_a_date():
    later = email.utils.format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30))
    assert 28 <= (retry_after({"retry-after": later}) or 0) <= 30
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None and retry_after({}) is None


@pytest.mark.parametrize("stream", [False, True])
def test_many_answers_that_fail_are_one_line(client, vllm, caplog, stream):
    vllm.say = lambda c: c.reply(500, {"error": {"message": "CUDA error"}})
    with pytest.raises(openai.InternalServerError):
        client.completions.create(model="style", prompt=["hi", "ho"], n=3, stream=stream)
    assert len(log_lines(caplog)) == 1


def test_scores_of_tokens_that_are_not_named_are_refused(client, vllm):
    vllm.say = lambda c: c.stream(chunk("hello", reason="stop"))
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, logprobs=1)
    assert caught.value.status_code == 502


def test_of_many_tokens_none_is_lost_where_their_scores_are_fewer(client, vllm):
    scores = {"token_logprobs": [-1.0], "top_logprobs": [{"token_id:40": -1.0}]}
    vllm.say = lambda c: c.stream(chunk("hello", 40, 41, 42, reason="stop", logprobs=scores))
    output = client.completions.create(model="style", prompt="hi", logprobs=1)
    assert output.choices[0].text == "hello" and output.usage.completion_tokens == 3
    assert output.choices[0].logprobs.token_logprobs == [-1.0, None, None]


@pytest.mark.parametrize("stream", [False, True])
def test_nobody_listens(client, vllm, caplog, stream):
    vllm.close()
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, stream)
    assert (caught.value.status_code, caught.value.code) == (503, "engine_unavailable")
    assert vllm.url in caught.value.body["message"] and "ConnectError" in caught.value.body["message"]
    assert int(caught.value.response.headers["retry-after"]) >= 1
    (line,) = log_lines(caplog)
    assert vllm.url in line and "ConnectError: Connection refused" in line
    vllm.open(vllm.port)
    assert ask(client, stream) == ("hello", "length")


@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_that_is_closed_without_an_answer(client, vllm, stream):
    vllm.say = in_turn(
        lambda c: None, lambda c: c.reset(), lambda c: c.stream(chunk("hi", 40, reason="stop"))
    )
    for _ in range(2):
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, stream)
        assert caught.value.status_code == 503 and "does not answer" in caught.value.body["message"]
    assert ask(client, stream) == ("hi", "stop")


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_does_not_come_in_time(gateway, vllm, caplog, stream):
    """The client gets the name of the engine that it waited for, and gets what was there."""
    client = openai.OpenAI(base_url=gateway(seconds=2).url + "/v1", api_key="none", max_retries=0)
    vllm.say = lambda c: (c.stream(chunk("hello", 40)), time.sleep(6))
    text = ""
    with pytest.raises(openai.APIError) as caught:
        for part in client.completions.create(model="style", prompt="hi", stream=stream):
            text += part.choices[0].text
    if not stream:
        assert caught.value.status_code == 504
        text = caught.value.body["partial"][0]["text"]
    assert text == "hello" and caught.value.code == "timeout" and vllm.url in caught.value.body["message"]
    (line,) = log_lines(caplog)
    assert vllm.url in line


@pytest.mark.parametrize("path", ["completions", "classify"])
def test_a_silent_vllm_does_not_keep_the_gateway_from_ending(gateway, vllm, path):
    """What is not done in time ends as an error."""
    running, silent = gateway(), threading.Event()
    vllm.say = lambda c: (silent.set(), time.sleep(20))
    body = {"completions": {"model": "style", "prompt": "hi"}, "classify": {"model": "mood", "input": "hi"}}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx2.post, f"{running.url}/v1/{path}", json=body[path], timeout=30)
        assert silent.wait(20)
        running.server.should_exit = True
        reply = asked.result(15)
    assert reply.status_code == 503 and reply.json()["error"]["code"] == "shutting_down"


def test_tls_where_there_is_none(compiled, llama, vllm):
    with pytest.raises(SoftPromptError, match="no secure connection") as caught:
        Vllm(vllm.url.replace("http:", "https:")).models()
    assert "http or https" in caught.value.fix


@pytest.mark.parametrize("url", ["127.0.0.1:1", "http://[::", "ftp://x", "http://user:secret@127.0.0.1:1/v1"])
def test_addresses_that_are_none(url):
    with pytest.raises(SoftPromptError) as caught:
        Vllm(url).models()
    assert "secret" not in str(caught.value)


def test_a_key_that_cannot_be_sent_is_not_shown(vllm):
    """A line's end, as files of secrets have it, is no part of a key."""
    for key in ("schlüssel", "sk-a\nb"):
        with pytest.raises(SoftPromptError, match="key cannot be sent") as caught:
            Vllm(vllm.url, key)
        assert key not in str(caught.value)
    assert Vllm(vllm.url, f"{KEY}\n").models() == MODELS["data"]


@pytest.mark.parametrize("content", [{}, {"data": None}, {"data": [3]}, {"data": []}, HTML, [1]])
def test_a_list_of_models_that_is_none(vllm, content):
    vllm.models = lambda c: c.reply(200, content)
    with pytest.raises(SoftPromptError, match="cannot be read"):
        Vllm(vllm.url).models()


@pytest.mark.slow
def test_health(gateway, vllm, caplog):
    """Degraded while vLLM does not answer, or serves something else; 200 throughout."""
    caplog.set_level(logging.WARNING)
    url = gateway().url + "/health"

    def comes(status):
        end = time.monotonic() + 20
        while (reply := httpx2.get(url)).json()["status"] != status:
            assert time.monotonic() < end and reply.status_code == 200
            time.sleep(0.05)
        return reply.json().get("reason", "")

    comes("ok")
    for fails, word in (
        ({"health": lambda c: c.reply(503, {"error": "EngineDeadError"})}, "EngineDeadError"),
        ({"models": lambda c: c.reply(401, {"error": "Unauthorized"})}, "401"),
        ({"models": lambda c: c.reply(200, {"data": [{"id": "other"}]})}, "other"),
        ({"models": lambda c: c.reply(200, HTML)}, "JSON"),
    ):
        well = {name: getattr(vllm, name) for name in fails}
        vars(vllm).update(fails)
        reason = comes("degraded")
        assert word in reason and vllm.url not in reason
        vars(vllm).update(well)
        comes("ok")
    vllm.health = lambda c: c.reply(404, {"detail": "Not Found"})  # a balancer's: no sign of illness
    vllm.close()
    assert "ConnectError" in comes("degraded")
    vllm.open(vllm.port)
    comes("ok")
    lines = log_lines(caplog)
    assert len(lines) == 10 and all(vllm.url in line for line in lines)


def test_labels(gateway, vllm, caplog):
    url = gateway().url + "/v1/classify"

    def classify():
        return httpx2.post(url, json={"model": "mood", "input": "hi"})

    def score(connection):
        top = {f"token_id:{token}": -token / 10 for token in connection.body["logprob_token_ids"]}
        connection.reply(200, {"choices": [{"logprobs": {"top_logprobs": [top]}}]})

    vllm.say, empty = score, {"choices": [{"logprobs": {"top_logprobs": [{}]}}]}
    assert sum(classify().json()["data"][0]["probs"].values()) == pytest.approx(1)
    label, others = classify().json()["data"][0]["label"], {"model": "mood", "prompt": "hi", "n": 2}
    answers = httpx2.post(url.replace("classify", "completions"), json=others).json()["choices"]
    assert [(one["text"], one["finish_reason"]) for one in answers] == [(label, "stop")] * 2
    for say, status, word in (
        (lambda c: c.reply(200, {"choices": []}), 502, "log-probabilities"),
        (lambda c: c.reply(200, empty), 502, "log-probabilities"),
        (lambda c: c.reply(200, HTML), 502, "JSON"),
        (lambda c: c.reply(429, {"error": "x"}, Retry_After="7"), 429, "429"),
        (lambda c: c.reply(401, {"error": "x"}), 502, "401"),
        (lambda c: c.reset(), 503, "does not answer"),
    ):
        vllm.say, before = say, len(log_lines(caplog))
        reply = classify()
        assert reply.status_code == status and word in reply.json()["error"]["message"]
        assert len(log_lines(caplog)) == before + 1
        assert httpx2.post(url.replace("classify", "completions"), json=others).status_code == status
        assert status != 429 or reply.headers["retry-after"] == "7"
