"""Texts that take long to tokenize hold up nobody else; those that are far too long are not read whole."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from softprompt.serve.http import long_texts
from softprompt.serve.http.errors import ApiError
from softprompt.serve.http.inputs import Inputs
from softprompt.serve.http.limits import Limits
from softprompt.serve.http.long_texts import AT_ONCE, LONG, LongTexts
from softprompt.serve.request import ContextExceeded, Token


class Watched:
    """A tokenizer that notes what it was given, and waits for leave with long texts."""

    def __init__(self, real) -> None:
        self.real, self.given = real, []
        self.begun, self.leave = threading.Event(), threading.Event()
        self.leave.set()
        self.backend_tokenizer = self

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __len__(self):
        return len(self.real)

    def __call__(self, text, **more):
        self._note(text)
        return self.real(text, **more)

    def encode_batch(self, texts, **more):
        for text in texts:
            self._note(text)
        return self.real.backend_tokenizer.encode_batch(texts, **more)

    def _note(self, text) -> None:
        self.given.append(len(text))
        if len(text) > LONG:
            self.begun.set()
            assert self.leave.wait(60)


@pytest.fixture
def watched(talker):
    return Watched(talker.tokenizer)


def test_a_long_text_holds_no_short_one_up(watched):
    inputs = Inputs(watched, None, Limits())
    watched.leave.clear()
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(inputs.text, "x" * (LONG + 1))
        assert watched.begun.wait(60)
        short = pool.submit(inputs.text, "abc")
        try:
            assert len(short.result(60).ids) == 3 and not long.done()  # answered while the other is read
        finally:
            watched.leave.set()
        assert len(long.result(60).ids) == LONG + 1


def test_names_and_bytes_of_tokens_wait_for_no_text(watched):
    inputs = Inputs(watched, None, Limits())
    token = Token(5, "", -1.0, ((5, "", -1.0), (6, "", -2.0)))
    with ThreadPoolExecutor(1) as pool, inputs.long_texts._short, inputs.long_texts._long:
        asked = pool.submit(lambda: (inputs.name(token), inputs.names(token), inputs.bytes(5)))
        try:
            name, names, data = asked.result(10)
        finally:
            if not asked.done():
                inputs.long_texts._short.release()
                inputs.long_texts._short.acquire()
    assert name == watched.decode([5]) and len(names) == 2 and bytes(data).decode() == name


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_long_text_is_echoed_with_nothing_to_wait_for(serve, monkeypatch, scored, stream):
    """Once the engine has the request, nobody tokenizes for it, though long texts take every place."""
    served = serve(context=10**6)
    texts, submit, turns = served.app.state.service.inputs.long_texts, served.engine.submit, []
    real = texts.turn

    def turn(characters=0):
        turns.append((characters, threading.current_thread()))
        return real(characters)

    def crowded(*args, **more):
        for _ in range(AT_ONCE):
            assert texts._room.acquire(blocking=False)
        return submit(*args, **more)

    monkeypatch.setattr(texts, "turn", turn)
    monkeypatch.setattr(served.engine, "submit", crowded)
    text = "ab " * LONG
    body = {"model": "tiny", "prompt": text, "echo": True, "max_tokens": 1, "stream": stream}
    reply = httpx.post(
        f"{served.url}/v1/completions", json=body | ({"logprobs": 0} if scored else {}), timeout=60
    )
    assert reply.status_code == 200
    output = (
        reply.json()["choices"][0]
        if not stream
        else json.loads(reply.text.split("\n\n")[0][6:])["choices"][0]
    )
    assert output["text"].startswith(text) and bool(output["logprobs"]) == scored
    assert turns and served.thread not in [thread for _, thread in turns]
    assert len(turns) == (2 if scored else 1)  # the text is tokenized again for its tokens' places alone


def test_long_texts_are_refused_where_enough_of_them_are_in_hand(watched, monkeypatch):
    texts = LongTexts(watched, None)
    inside, leave, waits = [], threading.Event(), threading.Event()

    def read() -> None:
        with texts.turn(LONG + 1):
            inside.append(1)
            waits.set()
            assert leave.wait(60)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [pool.submit(read) for _ in range(AT_ONCE)]
        assert waits.wait(60)
        while texts._room._value:  # until all of them are in hand
            threading.Event().wait(0.001)
        with pytest.raises(ApiError) as caught, texts.turn(LONG + 1):
            pass
        assert caught.value.status == 429 and caught.value.retry_after and len(inside) == 1
        with texts.turn(LONG):
            pass
        leave.set()
        for job in jobs:
            job.result(60)
    with texts.turn(LONG + 1):
        pass


def test_of_a_text_that_is_far_too_long_the_beginning_is_read(watched):
    texts = LongTexts(watched, 256)
    with pytest.raises(ContextExceeded, match="256 tokens, and the prompt alone takes more than 512"):
        texts.check("x" * 1_000_000, "prompt")
    assert watched.given == [LONG]
    texts.check("x" * LONG, "prompt")  # whether it fits is seen when it is tokenized
    few = LongTexts(watched, LONG)
    few.check("x" * (LONG + 1), "prompt")
    assert watched.given == [LONG]


def test_a_text_of_few_tokens_is_never_refused_for_its_length(watched, monkeypatch):
    monkeypatch.setattr(long_texts, "LONG", 8)
    texts = LongTexts(watched, 10)
    watched.encode_batch = lambda all_of_them, **_: [range(len(all_of_them[0]) // 10)]
    texts.check("x" * 200, "prompt")  # 20 tokens are not beyond two contexts
    with pytest.raises(ContextExceeded):
        texts.check("x" * 1000, "prompt")


HUGE = "1" * 900_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", {"model": "tiny", "prompt": HUGE}),
        ("completions", {"model": "tiny", "prompt": [5] * 300_000}),
        ("completions", {"model": "team-b/chat", "row": {"input": HUGE}}),
        ("chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": HUGE}]}),
        ("chat/completions", {"model": "team-b/chat", "messages": [{"role": "user", "content": HUGE}]}),
        ("classify", {"model": "team-a/reviews", "input": HUGE}),
    ],
)
def test_a_huge_input_is_an_error_of_the_context(serve, path, body):
    served = serve()
    reply = httpx.post(f"{served.url}/v1/{path}", json=body, timeout=60)
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "context_length_exceeded"
    assert not served.engine.requests and len(reply.text) < 1000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", {"model": "tiny", "prompt": ["x"] * 10_000}),
        ("completions", {"model": "tiny", "prompt": [[5]] * 10_000}),
        ("classify", {"model": "team-a/reviews", "input": ["x"] * 10_000}),
    ],
)
def test_very_many_inputs_are_refused_before_any_is_read(serve, path, body, monkeypatch):
    served = serve()
    inputs = served.app.state.service.inputs
    for name in ("text", "row"):
        monkeypatch.setattr(inputs, name, lambda *_, **__: pytest.fail("read"))
    reply = httpx.post(f"{served.url}/v1/{path}", json=body, timeout=60)
    assert reply.status_code == 400 and "At most 32" in reply.json()["error"]["message"]
