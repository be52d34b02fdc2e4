"""The gateway ahead of a vLLM that keeps what it is asked: what is sent, refused, and given back."""

from __future__ import annotations

import asyncio
import base64
import copy
import errno
import hashlib
import io
import json
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import safetensors.torch
import torch
from tests.serve.http.conftest import CHAT, Running
from tests.serve.http.talking import BACK, by_hand, create, pieces, talk

from softprompt import methods
from softprompt.artifacts.interop import foreign
from softprompt.artifacts.interop.kv_cache.batch import compile_all, sources
from softprompt.artifacts.interop.kv_cache.folder import EMBEDDINGS, Folder
from softprompt.methods.base import Setting
from softprompt.serve.gateway import faults
from softprompt.serve.gateway.client import Vllm
from softprompt.serve.gateway.engine import VllmEngine
from softprompt.serve.gateway.registry import CompiledRegistry
from softprompt.serve.http import create_app
from softprompt.serve.request import (
    BrokenPrompt,
    Busy,
    EngineAway,
    EngineBusy,
    EngineFailed,
    InvalidRequest,
    Request,
    Sampling,
    Stopped,
    UnknownPrompt,
)

IDS = (5, 61, 7)


class FakeVllm:
    """Answers with given tokens, and keeps what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status, self.answers = 200, [(40, "he"), (41, "llo")]
        self.scores: Callable[[dict], dict[int, float]] = lambda body: {}

    def answer(self, request: Any) -> Any:
        body = json.loads(request.content)
        self.bodies.append(body)
        if self.status != 200:
            return httpx2.Response(self.status, json={"error": {"message": "no"}})
        if not body.get("stream"):
            top = {f"token_id:{token}": value for token, value in self.scores(body).items()}
            return httpx2.Response(200, json={"choices": [{"logprobs": {"top_logprobs": [top]}}]})
        chunks = [{"choices": [{"text": text, "token_ids": [token]}]} for token, text in self.answers]
        chunks.append({"choices": [{"text": "", "token_ids": [], "finish_reason": "length"}]})
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        return httpx2.Response(200, content="".join([*lines, "data: [DONE]\n\n"]))

    async def answer_later(self, request: Any) -> Any:
        return self.answer(request)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, llama):
    """A prefix, two soft prompts before the input, and one after it; a classifier."""
    root = tmp_path_factory.mktemp("prompts")
    for name, method, placement, prompts in (
        ("team/style", "prefix-tuning", "before", ("default",)),
        ("voices", "prompt-tuning", "before", ("joke", "fact")),
        ("late", "prompt-tuning", "after", ("default",)),
    ):
        options = {"length": 3, "placement": placement}
        built = methods.build(method, Setting(llama, prompts), {**options, "init": "vocab"})
        foreign.save(root / name, llama, method, options, built.state_dict(), prompts, "a test")
    out = root / "compiled"
    assert len(list(compile_all(sources([root]), llama, out))) == 4
    return Folder(out)


@pytest.fixture
def vllm():
    return FakeVllm()


@pytest.fixture
def engine(compiled, llama, vllm):
    transport = httpx2.MockTransport(vllm.answer_later)
    client = Vllm("http://vllm", transport=transport)
    registry = CompiledRegistry(compiled.path, llama.tokenizer, 256)
    return VllmEngine(client, registry, "base", llama.tokenizer)


def run(answer) -> list:
    async def read():
        return [part async for part in answer]

    return asyncio.run(read())


def test_the_plain_model(engine, vllm):
    *tokens, end = run(engine.submit(Request(None, IDS, Sampling(max_tokens=2))))
    assert [token.text for token in tokens] == ["he", "llo"] and [token.id for token in tokens] == [40, 41]
    assert (end.reason, end.input_tokens, end.output_tokens, end.prompt_vectors) == ("length", 3, 2, 0)
    (sent,) = vllm.bodies
    assert sent["prompt"] == list(IDS) and "cache_salt" not in sent and "kv_transfer_params" not in sent


@pytest.mark.parametrize("name", ["team/style", "voices:joke", "voices:fact"])
def test_a_prompt_is_named_by_its_content(name, engine, vllm, compiled):
    *_, end = run(engine.submit(Request(name, IDS)))
    entry = compiled.entry(name)
    (sent,) = vllm.bodies
    assert sent["prompt"] == [0, 0, 0, *IDS] and sent["cache_salt"] == entry.sha256
    assert sent["kv_transfer_params"] == {"prefix_id": entry.sha256, "prefix_length": 3}
    assert end.prompt_vectors == 3 and end.input_tokens == 3


def test_soft_tokens_after_the_input_go_as_embeddings(engine, vllm, compiled, llama):
    run(engine.submit(Request("late", IDS)))
    (sent,) = vllm.bodies
    assert "prompt" not in sent and sent["cache_salt"] == compiled.entry("late").sha256
    given = torch.load(io.BytesIO(base64.b64decode(sent["prompt_embeds"])), weights_only=True)
    expected = torch.cat([llama.embed(torch.tensor(IDS)), compiled.load(compiled.entry("late"))["after"]])
    assert torch.equal(given, expected)


def test_sampling_in_vllms_words(engine, vllm):
    how = Sampling(
        max_tokens=9, temperature=0.5, top_p=0.9, top_k=7, seed=3, stop=("x",), logprobs=2,
        frequency_penalty=0.1, presence_penalty=0.2, logit_bias={4: -1.0}, min_tokens=2, ignore_eos=True,
    )  # fmt: skip
    run(engine.submit(Request(None, IDS, how)))
    expected = {
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 3, "stop": ["x"],
        "logprobs": 2, "frequency_penalty": 0.1, "presence_penalty": 0.2, "logit_bias": {"4": -1.0},
        "min_tokens": 2, "ignore_eos": True,
    }  # fmt: skip
    assert {key: vllm.bodies[0][key] for key in expected} == expected


def test_strengths(engine, vllm):
    run(engine.submit(Request("team/style", IDS, scale=0)))
    assert vllm.bodies[0]["prompt"] == list(IDS) and "cache_salt" not in vllm.bodies[0]
    with pytest.raises(InvalidRequest, match=r"strength 0\.5"):
        engine.submit(Request("team/style", IDS, scale=0.5))
    for name in ("team/style", None):
        with pytest.raises(InvalidRequest, match="log-probabilities of an input"):
            engine.submit(Request(name, IDS, echo=True))


def test_a_stop_string_that_is_a_control_token_is_named_by_id(engine, vllm, llama):
    name, token = llama.tokenizer.eos_token, llama.tokenizer.eos_token_id
    run(engine.submit(Request(None, IDS, Sampling(stop=("x", name)))))
    assert vllm.bodies[-1]["stop"] == ["x"] and vllm.bodies[-1]["stop_token_ids"] == [token]
    with pytest.raises(InvalidRequest, match="control token"):
        engine.submit(Request(None, IDS, Sampling(stop=("x" + name,))))


@pytest.mark.parametrize("name", ["no", "../compiled", "team", "team/style:x", "voices", "/etc/passwd", ""])
def test_unknown_names(name, engine, vllm):
    with pytest.raises(UnknownPrompt):
        engine.submit(Request(name, IDS))
    assert not vllm.bodies


def test_names_are_those_of_the_embedded_server(engine):
    registry = engine.registry
    assert {entry.name for entry in registry.names()} == {"team/style", "voices", "late"}
    assert set(registry.describe("voices").prompts) == {"joke", "fact"}
    assert registry.describe("team/style").prompts == ()
    with pytest.raises(UnknownPrompt):
        registry.describe("voice")


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_what_vllm_refuses(status, engine, vllm):
    vllm.status = status
    answer = engine.submit(Request("team/style", IDS))
    refused = {400: InvalidRequest, 429: EngineBusy, 500: EngineFailed, 503: EngineAway}
    with pytest.raises(refused[status], match="http://vllm"):
        run(answer)
    assert engine.numbers()["finished_error_total"] == 1


class TestDamage:
    """Content that is missing, damaged or not finite never reaches vLLM."""

    @pytest.fixture
    def file(self, compiled):
        file = compiled.content(compiled.entry("team/style").sha256)
        content = file.read_bytes()
        yield file
        file.write_bytes(content)

    def test_missing_and_damaged(self, engine, vllm, file):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(BrokenPrompt, match="hash"):
            engine.submit(Request("team/style", IDS))
        file.unlink()
        with pytest.raises(BrokenPrompt):
            engine.submit(Request("team/style", IDS))
        run(engine.submit(Request("voices:joke", IDS)))
        file.write_bytes(content)
        run(engine.submit(Request("team/style", IDS)))
        assert len(vllm.bodies) == 2

    def test_not_finite(self, engine, vllm, compiled, llama):
        tensors = compiled.load(compiled.entry("voices:joke"))
        tensors["v.1"][0, 0, 0] = float("nan")
        good = compiled.entry("voices:joke")
        compiled.add(tensors, lambda sha256, size: replace(good, name="bad", sha256=sha256))
        try:
            with pytest.raises(BrokenPrompt, match="finite"):
                engine.submit(Request("bad", IDS))
        finally:
            compiled.name_file("bad").unlink()
        assert not vllm.bodies

    def test_what_is_damaged_later_is_blamed_on_the_prompt(self, engine, vllm, file):
        run(engine.submit(Request("team/style", IDS)))
        answer = engine.submit(Request("team/style", IDS))
        file.unlink()
        vllm.status = 500
        with pytest.raises(BrokenPrompt):
            run(answer)


def test_a_name_is_moved_to_new_content(engine, vllm, compiled):
    joke, fact = compiled.entry("voices:joke"), compiled.entry("voices:fact")
    compiled.add(compiled.load(joke), lambda *_: replace(joke, name="now"))
    run(engine.submit(Request("now", IDS)))
    compiled.add(compiled.load(fact), lambda *_: replace(fact, name="now"))
    run(engine.submit(Request("now", IDS)))
    compiled.name_file("now").unlink()
    assert [sent["cache_salt"] for sent in vllm.bodies] == [joke.sha256, fact.sha256]


def test_a_damaged_new_version_leaves_its_place_to_the_last_one(engine, vllm, compiled, caplog):
    joke, fact = compiled.entry("voices:joke"), compiled.entry("voices:fact")
    compiled.add(compiled.load(joke), lambda *_: replace(joke, name="moved"))
    file = compiled.name_file("moved")
    try:
        assert not engine.registry.get("moved").outdated
        record = json.loads(file.read_text())
        for damaged in ("{", "[]", '{"format": 1}', json.dumps({**record, "sha256": "0" * 64})):
            file.write_text(damaged)
            for _ in range(2):
                held = engine.registry.get("moved")
                assert held.outdated and held.entry.sha256 == joke.sha256
        output = [
            one for one in caplog.records if one.levelname == "WARNING" and "'moved'" in one.getMessage()
        ]
        assert len(output) == 4  # once for each version
        compiled.add(compiled.load(fact), lambda *_: replace(fact, name="moved"))
        found = engine.registry.get("moved")
        assert not found.outdated and found.entry.sha256 == fact.sha256
    finally:
        file.unlink()
    with pytest.raises(UnknownPrompt):
        engine.registry.get("moved")


@pytest.mark.parametrize("ask", ["get", "describe"])
def test_names_by_which_an_older_version_answers_are_counted(ask, engine, compiled):
    joke, fact = compiled.entry("voices:joke"), compiled.entry("voices:fact")
    content = engine.registry.folder.content(joke.sha256)
    whole, files = content.read_bytes(), []
    try:
        for name in ("one", "two"):
            compiled.add(compiled.load(joke), lambda *_, name=name: replace(joke, name=name))
            engine.registry.get(name)
            files.append(compiled.name_file(name))
            files[-1].write_text("{")
            assert engine.registry.get(name).outdated
        assert engine.numbers()["prompts_outdated"] == 2
        files[0].unlink()
        with pytest.raises(UnknownPrompt):
            getattr(engine.registry, ask)("one")
        assert engine.numbers()["prompts_outdated"] == 1
        content.unlink()
        with pytest.raises(BrokenPrompt):
            engine.registry.get("two")
        assert engine.numbers()["prompts_outdated"] == 0
        content.write_bytes(whole)
        assert engine.registry.get("two").outdated and engine.numbers()["prompts_outdated"] == 1
        compiled.add(compiled.load(fact), lambda *_: replace(fact, name="two"))
        assert not engine.registry.get("two").outdated and engine.numbers()["prompts_outdated"] == 0
    finally:
        content.write_bytes(whole)
        for file in files:
            file.unlink(missing_ok=True)


def test_content_that_cannot_be_read_leaves_its_place_to_the_last_one(engine, compiled, monkeypatch):
    joke, fact = compiled.entry("voices:joke"), compiled.entry("voices:fact")
    compiled.add(compiled.load(joke), lambda *_: replace(joke, name="unread"))
    try:
        assert engine.registry.get("unread").entry.sha256 == joke.sha256
        compiled.add(compiled.load(fact), lambda *_: replace(fact, name="unread"))
        own, kept = Path.read_bytes, compiled.content(fact.sha256)

        def read_bytes(path: Path) -> bytes:
            if path == kept:
                raise PermissionError(13, "Permission denied")
            return own(path)

        with monkeypatch.context() as failing:
            failing.setattr(Path, "read_bytes", read_bytes)
            with pytest.raises(BrokenPrompt, match="cannot be served"):
                engine.submit(Request("voices:fact", IDS))
            held = engine.registry.get("unread")
            assert held.outdated and held.entry.sha256 == joke.sha256
        held = engine.registry.get("unread")
        assert not held.outdated and held.entry.sha256 == fact.sha256
    finally:
        compiled.name_file("unread").unlink()


def test_content_that_holds_no_tensors_is_refused(engine, compiled):
    content = b"no tensors"
    sha256 = hashlib.sha256(content).hexdigest()
    file, good = compiled.content(sha256), compiled.entry("voices:joke")
    compiled.add(compiled.load(good), lambda *_: replace(good, name="none", sha256=sha256))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    try:
        with pytest.raises(BrokenPrompt):
            engine.submit(Request("none", IDS))
    finally:
        file.unlink()
        compiled.name_file("none").unlink()


@pytest.mark.parametrize("content", [None, b"", bytes([16, 0, 0, 0]), "cut", "another tensor"])
def test_embeddings_that_cannot_be_read_are_blamed_on_the_prompt(content, engine, vllm, compiled):
    file = compiled.path / EMBEDDINGS
    whole = file.read_bytes()
    try:
        file.unlink()
        if content is not None:
            other = safetensors.torch.save({"other": torch.zeros(2, 2)})
            file.write_bytes({"cut": whole[:-8], "another tensor": other}.get(content, content))
        with pytest.raises(BrokenPrompt):
            engine.submit(Request("late", IDS))
        assert not vllm.bodies
    finally:
        file.write_bytes(whole)
    run(engine.submit(Request("late", IDS)))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EHOSTUNREACH, "Connect call failed ('10.1.2.3', 8001)"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('10.1.2.3', 8001)"),
        TimeoutError(errno.ETIMEDOUT, "Connect call failed ('10.1.2.3', 8001)"),
    ],
)
def test_an_address_of_vllm_is_not_in_the_reason_why_it_does_not_answer(error):
    lost = faults.lost("vLLM", error, midway=False)
    assert os.strerror(error.errno) in lost.why and "10.1.2.3" not in lost.why


def test_reasons_with_numbers_of_their_own_keep_their_words():
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert "Name or service not known" in faults.lost("vLLM", unknown, midway=False).why
    assert "bad certificate" in faults.lost("vLLM", ssl.SSLError(1, "bad certificate"), midway=False).why


def test_a_record_of_the_same_size_and_time_is_seen(engine, compiled):
    joke, fact = compiled.entry("voices:joke"), compiled.entry("voices:fact")
    file = compiled.name_file("same")
    compiled.add(compiled.load(joke), lambda *_: replace(joke, name="same"))
    try:
        assert engine.registry.get("same").entry.sha256 == joke.sha256
        before, text = file.stat(), file.read_text()
        time.sleep(0.02)  # another step of the system's clock
        file.write_text(text.replace(joke.sha256, fact.sha256))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert engine.registry.get("same").entry.sha256 == fact.sha256
    finally:
        file.unlink()


def test_candidates_are_scored_where_they_part(engine, vllm):
    """log p of each candidate, token by token; the fake says log p(token) = -token / 10."""
    vllm.scores = lambda body: {token: -token / 10 for token in body["logprob_token_ids"]}
    scores = asyncio.run(engine._scores(engine.registry.get("team/style"), IDS, ((1, 2), (1, 3, 4), (5,))))
    assert scores == pytest.approx([-0.3, -0.8, -0.5])
    asked = {(*body["prompt"][3 + len(IDS) :],): body["logprob_token_ids"] for body in vllm.bodies}
    assert asked == {(): [1, 5], (1,): [2, 3], (1, 3): [4]}


def test_stopping(engine):
    engine.stop()
    with pytest.raises(Stopped):
        engine.submit(Request(None, IDS))
    assert engine.numbers()["requests_running"] == 0


def test_counted(engine):
    run(engine.submit(Request("team/style", IDS)))
    numbers = engine.numbers()
    assert (numbers["requests_total"], numbers["input_tokens_total"], numbers["output_tokens_total"]) == (
        1,
        3,
        2,
    )
    assert numbers["finished_length_total"] == 1 and numbers["requests_running"] == 0


class TestOverHttp:
    """The same routes as the embedded server's."""

    @pytest.fixture
    def ask(self, engine, llama):
        app = create_app(
            engine, engine.registry, model_name="tiny", tokenizer=llama.tokenizer, context=256,
            hosts=("gateway",),
        )  # fmt: skip

        def ask(method: str, path: str, body: Any = None) -> Any:
            async def run() -> Any:
                transport = httpx2.ASGITransport(app)
                async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
                    return await client.request(method, path, json=body)

            return asyncio.run(run())

        return ask

    def test_a_completion(self, ask, vllm, compiled):
        output = ask("POST", "/v1/completions", {"model": "team/style", "prompt": "hi", "max_tokens": 2})
        assert output.status_code == 200, output.text
        answer = output.json()
        assert answer["choices"][0]["text"] == "hello" and answer["model"] == "team/style"
        assert answer["usage"]["prompt_tokens"] == 2 and answer["usage"]["completion_tokens"] == 2
        assert vllm.bodies[0]["cache_salt"] == compiled.entry("team/style").sha256

    @pytest.mark.parametrize("model", ["tiny", "team/style"])
    def test_a_conversation_goes_on_with_its_own_messages(self, engine, llama, vllm, model):
        tokenizer = copy.deepcopy(llama.tokenizer)
        tokenizer.chat_template = CHAT
        app = create_app(engine, engine.registry, model_name="tiny", tokenizer=tokenizer, context=2048)
        running = Running(app, engine, 1.0)  # type: ignore[arg-type]
        try:
            client = openai.OpenAI(base_url=running.url + "/v1", api_key="x", max_retries=0)
            sent = []
            for back in BACK.values():
                talk(lambda messages: create(client, model=model, messages=messages), back)
                sent.append([body["prompt"] for body in vllm.bodies[-3:]])
            talk(lambda messages: pieces(client, model=model, messages=messages), lambda message: message)
            sent.append([body["prompt"] for body in vllm.bodies[-3:]])
            by_hand(lambda messages: create(client, model=model, messages=messages))
            assert all(one == [body["prompt"] for body in vllm.bodies[-3:]] for one in sent)
            assert len({len(prompt) for prompt in sent[0]}) > 1
        finally:
            running.stop()

    def test_models(self, ask):
        listed = {one["id"]: one["parent"] for one in ask("GET", "/v1/models").json()["data"]}
        assert listed == {"tiny": None} | dict.fromkeys(
            ["team/style", "voices:joke", "voices:fact", "late"], "tiny"
        )
        assert ask("GET", "/v1/models/voices").json()["softprompt"]["method"] == "prompt-tuning"

    @pytest.mark.parametrize("field", ["kv_transfer_params", "cache_salt", "prompt_embeds", "prefix_id"])
    def test_vllms_own_fields_are_refused(self, ask, vllm, field):
        output = ask("POST", "/v1/completions", {"model": "tiny", "prompt": "hi", field: "x"})
        assert output.status_code == 400 and field in output.json()["error"]["message"] and not vllm.bodies

    def test_errors(self, ask, vllm, compiled):
        assert ask("POST", "/v1/completions", {"model": "no", "prompt": "hi"}).status_code == 404
        file = compiled.content(compiled.entry("team/style").sha256)
        content = file.read_bytes()
        file.unlink()
        try:
            output = ask("POST", "/v1/completions", {"model": "team/style", "prompt": "hi"})
        finally:
            file.write_bytes(content)
        assert output.status_code == 422 and output.json()["error"]["code"] == "prompt_broken"
        vllm.status = 503
        output = ask("POST", "/v1/completions", {"model": "team/style", "prompt": "hi"})
        assert output.status_code == 503 and int(output.headers["Retry-After"]) >= 1


def test_answers_in_hand_are_bounded(compiled, llama, vllm):
    """A cancelled one, and one that ended, take no room."""
    client = Vllm("http://vllm", transport=httpx2.MockTransport(vllm.answer_later))
    registry = CompiledRegistry(compiled.path, llama.tokenizer, 256)
    engine = VllmEngine(client, registry, "base", llama.tokenizer, 2)
    answers = [engine.submit(Request(None, IDS)) for _ in range(2)]
    with pytest.raises(Busy) as caught:
        engine.submit(Request(None, IDS))
    assert caught.value.retry_after >= 1
    answers[0].cancel()
    engine.submit(Request(None, IDS))
    with pytest.raises(Busy):
        engine.submit(Request(None, IDS))
    run(answers[1])
    engine.submit(Request(None, IDS))
