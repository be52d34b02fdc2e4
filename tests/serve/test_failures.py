"""What fails inside the engine leaves one line in the log, and every client gets an error."""

from __future__ import annotations

import asyncio
import logging
import os
import re

import httpx2 as httpx
import openai
import pytest
import torch

pytest.importorskip("fastapi", reason="NO SERVER TESTS: pip install softprompt[serve]")

from tests.serve.http.conftest import serving

from softprompt.lm.kv_store import Running
from softprompt.serve.failures import line
from softprompt.serve.request import ModelFailed
from softprompt.serve.scheduler import Scheduler

CUDA = "CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture(scope="module")
def served(new_lm, folder, publish):
    lm = new_lm("llama")
    publish(lm, folder / "soft", "prompt-tuning", {"length": 4}, seed=1)
    publish(lm, folder / "mood", "prefix-tuning", {"length": 3}, seed=2, labels=("good", "bad"))
    with serving(lm, folder) as running:
        yield running


@pytest.fixture
def client(served):
    return openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0)


@pytest.fixture
def failures(caplog, monkeypatch):
    """The lines of the log that are about failures, where nobody asks for tracebacks."""
    monkeypatch.delenv("SOFTPROMPT_VERBOSE", raising=False)
    monkeypatch.setattr("softprompt.serve.failures.verbose", lambda: "SOFTPROMPT_VERBOSE" in os.environ)
    caplog.set_level(logging.INFO, "softprompt.serve")
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def broken(monkeypatch, served, error):
    """The model's forward pass raises, or gives what is not a number."""

    def forward(*args, **options):
        if error is None:
            out = real(*args, **options)
            out.logits = torch.full_like(out.logits, torch.nan)
            return out
        raise error

    real = served.engine.model.model.forward
    monkeypatch.setattr(served.engine.model.model, "forward", forward)


FAILURES = [
    (RuntimeError(CUDA), "RuntimeError: CUDA error", "an illegal memory access was encountered"),
    (
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        "OutOfMemoryError",
        "2 GiB",
    ),
    (None, "ModelFailed: ", "not finite"),
]


@pytest.mark.parametrize(("error", "kind", "cause"), FAILURES, ids=["cuda", "memory", "nan"])
def test_a_failure_of_the_model_is_one_line(served, client, failures, monkeypatch, error, kind, cause):
    broken(monkeypatch, served, error)
    with pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(model="soft", prompt="xyzzy", n=4)
    assert caught.value.code == "generation_failed" and caught.value.status_code == 500
    (output,) = failures()
    assert kind in output and cause in output and "\n" not in output
    assert re.search(r"\(softprompt/[a-z_/]+\.py:\d+\)", output)
    assert "failed (under soft): " in output and "xyzzy" not in output
    with pytest.raises(openai.APIError, match="could not be computed"):
        list(client.completions.create(model="tiny", prompt="x", stream=True))
    assert len(failures()) == 2 and "plain model" in failures()[1]
    scored = httpx.post(served.url + "/v1/classify", json={"model": "mood", "input": ["a", "b"]})
    assert scored.status_code == 500 and scored.json()["error"]["code"] == "generation_failed"
    assert len(failures()) == 3 and "mood" in failures()[2] and cause in failures()[2]
    monkeypatch.undo()
    assert client.completions.create(model="soft", prompt="x", max_tokens=2).usage.completion_tokens == 2


def test_rows_that_run_fail_together_as_one(served, folder, failures, monkeypatch, engine_on, asked, read):
    def step(*_):
        raise RuntimeError(CUDA)

    engine = engine_on(served.engine.model, folder=folder, started=False)
    asking = [("soft", 5), (None, 6), ("soft", 7)]
    answers = [engine.submit(asked(name, [id, 9], 9, ignore_eos=True)) for name, id in asking]
    monkeypatch.setattr(Running, "step", step)
    with torch.no_grad():
        engine.turn()
    ends = [read(answer, error=True)[1] for answer in answers]
    assert all(isinstance(end.error, ModelFailed) for end in ends)
    (output,) = failures()
    assert output.startswith("3 answers failed (under soft, the plain model): RuntimeError: CUDA error")


@pytest.mark.parametrize("others", [True, False])
@torch.no_grad()
def test_a_request_without_room_fails_alone(served, folder, monkeypatch, engine_on, asked, read, others):
    """Those that run continue, and the next requests are answered."""
    engine = engine_on(served.engine.model, folder=folder, started=False)
    joins = Running.join

    def full(*_):
        raise MemoryError("no room to grow")

    def join(*given):
        with monkeypatch.context() as inside:
            inside.setattr(Running, "_fit", full)
            joins(*given)

    def answer():
        return engine.submit(asked(None, [5, 9], 6, ignore_eos=True))

    def turns():
        for _ in range(12):
            engine.turn()

    first = answer()
    turns()
    running = [answer()] if others else []
    engine.turn()
    monkeypatch.setattr(Running, "join", join)
    unlucky = engine.submit(asked("soft", [7, 9], 6, ignore_eos=True))
    engine.turn()
    monkeypatch.setattr(Running, "join", joins)
    later = answer()
    turns()
    assert "no room to grow" in str(read(unlucky, error=True)[1].error)
    expected = [token.id for token in read(first)[0]]
    assert len(expected) == 6
    for one in (*running, later):
        assert [token.id for token in read(one)[0]] == expected


def test_what_nobody_foresaw_does_not_end_the_engine(served, client, failures, monkeypatch):
    monkeypatch.setattr(Scheduler, "choose_next", lambda *_: {}["no"])
    with pytest.raises(openai.InternalServerError):
        client.completions.create(model="soft", prompt="x")
    (output,) = failures()
    assert "KeyError: 'no' (softprompt/serve/engine.py:" in output
    monkeypatch.undo()
    assert client.completions.create(model="soft", prompt="x", max_tokens=2).choices[0].text is not None


def test_what_fails_before_a_row_is_queued(served, client, failures, monkeypatch):
    def chooser(*_):
        raise RuntimeError(CUDA)

    monkeypatch.setattr("softprompt.serve.sequence.Chooser", chooser)
    with pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(model="soft", prompt="x")
    assert caught.value.code == "generation_failed" and len(failures()) == 1


def test_verbose_gives_the_traceback_and_the_cause(served, client, failures, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_VERBOSE", "1")
    error = RuntimeError("outer")
    error.__cause__ = ValueError("inner")
    broken(monkeypatch, served, error)
    with pytest.raises(openai.InternalServerError):
        client.completions.create(model="soft", prompt="x")
    output, trace = failures()
    assert re.search(r"RuntimeError: outer \(softprompt/.*\.py:\d+\); caused by ValueError: inner", output)
    assert trace.startswith("ValueError: inner") and "Traceback" in trace and "scheduler.py" in trace


def test_the_engine_by_itself_raises_it(served, failures, monkeypatch):
    broken(monkeypatch, served, RuntimeError("no"))
    with pytest.raises(ModelFailed, match="cannot be run"):
        asyncio.run(served.engine.classifying("mood", ["a"]))
    assert len(failures()) == 1


def test_a_prompt_that_is_broken_is_one_line(served, client, failures, folder, publish):
    publish(served.engine.model, folder / "broken", "prompt-tuning", {"length": 2})
    (folder / "broken" / "prompt.safetensors").write_bytes(b"nothing")
    with pytest.raises(openai.UnprocessableEntityError):
        client.completions.create(model="broken", prompt="x")
    (text,) = [message for message in failures() if "cannot be served" in message]
    assert "\n" not in text and "broken" in text and re.search(r"\(softprompt/[a-z_/]+\.py:\d+\)", text)


def test_an_error_that_is_its_own_cause():
    error = ModelFailed("no", why="because")
    error.__cause__ = error
    assert line(error).startswith("ModelFailed: no: because")
