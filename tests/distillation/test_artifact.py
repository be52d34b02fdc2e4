"""A distilled prompt goes where a tuned one goes: eval, compose, PEFT, llama.cpp, vLLM, the server."""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path

import pytest
import torch

import softprompt
from softprompt.artifacts.interop.kv_cache.folder import Folder
from softprompt.cli import main
from softprompt.data.collate import batch_of_ids
from softprompt.distillation import answers

from ..conftest import tiny_model
from .test_distill import REQUESTS, SETTINGS, TEXT

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def distilled(tmp_path_factory, model_folder):
    """Distil with answers that are there; the artifact is `sea`, beside `sea-distill`."""
    folder = tmp_path_factory.mktemp("distilled")
    rows = [
        {"request": r, "answer": r[::-1], "complete": True, "limit": 6, "teacher": "same"} for r in REQUESTS
    ]
    (folder / "sea-distill").mkdir()
    (folder / "sea-distill/requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTPROMPT_CACHE", str(folder / "cache"))
        patch.setattr(answers, "_identity", lambda recipe, lm: "same")
        lm = softprompt.load(str(model_folder), dtype="float32")
        return softprompt.distill(lm, TEXT, REQUESTS, vectors=4, output=folder / "sea", **SETTINGS)


def test_commands_take_it(distilled, capsys, tmp_path):
    sea = distilled.tuned.artifact.path
    for command in (
        ["eval", sea, "--data", sea.parent / "sea-distill/requests.jsonl"],
        ["compose", "--scale", "0.5", sea, "--out", tmp_path / "mild"],
        ["compose", "--concat", sea, sea, "--out", tmp_path / "twice"],
        ["compile", sea, "--out", tmp_path / "compiled"],
        ["inspect", sea],
    ):
        assert main([*map(str, command), "--json"]) == 0, capsys.readouterr().err
        shown = json.loads(capsys.readouterr().out)
        if command[0] == "compile":
            assert [p["vectors"] for p in shown["prompts"].values()] == [4] and shown["refused"] == {}
    again = softprompt.open_prompt(tmp_path / "twice", distilled.tuned.lm)
    assert isinstance(again.generate("sun 1"), str)


def test_peft_and_back(distilled, tmp_path):
    tuned = distilled.tuned
    adapter, again = tmp_path / "adapter", tmp_path / "again"
    assert main(["export", str(tuned.artifact.path), "--to", "peft", "--out", str(adapter)]) == 0
    assert main(["import", str(adapter), "--from", "peft", "--out", str(again)]) == 0
    batch = batch_of_ids([tuned.lm.text_ids("sun 1")], [tuned.lm.text_ids(" nus")])
    first = torch.tensor([0])
    ours, plain = (tuned.lm.logits(batch, given) for given in (tuned.method(first), None))
    back = tuned.lm.logits(batch, softprompt.open_prompt(again, tuned.lm).method(first))
    assert (ours - back).abs().max() < 1e-4 < 1e-2 < (ours - plain).abs().max()


def test_llama_cpp_answers_as_it_does(distilled, tmp_path, capsys):
    pytest.importorskip("xllamacpp")
    from softprompt.artifacts.interop.llama_cpp import engine

    from ..artifacts.interop.gguf_file import write

    tuned, slots = distilled.tuned, tmp_path / "slots"
    gguf = write(tiny_model("llama"), tmp_path / "tiny.gguf")
    words = ["export", tuned.artifact.path, "--to", "llama.cpp", "--gguf", gguf, "--cache-type", "f32"]
    assert main([*map(str, words), "--out", str(slots), "--json"]) == 0, capsys.readouterr().err
    (slot,) = json.loads(capsys.readouterr().out)["slots"].values()
    assert len(slot["tokens"]) == 4
    server = engine.Engine(gguf, cache_type="f32").start(slots)
    ask = runpy.run_path(str(ROOT / "examples/llama_cpp_slots.py"))["main"]
    ask([str(slots), "sun 1", "--server", server.listening_address, "--tokens", "6"])
    answer = json.loads(capsys.readouterr().out.split("\t")[1])
    assert answer.strip() == tuned.generate("sun 1") != plain_answer(tuned, "sun 1")


def plain_answer(tuned, text):
    """Return the greedy answer of the model without vectors."""
    ids = torch.tensor([tuned.lm.text_ids(text)])
    answer = tuned.lm.model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    return tuned.encoder.decode(answer.tolist())


def test_what_the_vllm_connector_loads_is_the_prefix(distilled, tmp_path, monkeypatch):
    """The connector puts keys and values of each layer into vLLM's cache: these are the tuned ones."""
    monkeypatch.syspath_prepend(str(ROOT / "connectors/vllm/src"))
    from softprompt_vllm.prefixes import Prefixes

    tuned, compiled = distilled.tuned, tmp_path / "compiled"
    assert main(["compile", str(tuned.artifact.path), "--out", str(compiled)]) == 0
    entry = Folder(compiled).entry("sea")
    assert (entry.kind, entry.length) == ("kv", 4)
    layers = tuned.method(torch.tensor([0])).kv_before.layers
    for (key, value), ours in zip(Prefixes(compiled).get(entry.sha256), layers, strict=True):
        torch.testing.assert_close(value, ours.value[0].transpose(0, 1), atol=1e-5, rtol=1e-5)
        # keys are rotated to positions 0 … 3, which changes no length
        lengths = ours.key[0].transpose(0, 1).norm(dim=-1)
        torch.testing.assert_close(key.norm(dim=-1), lengths, atol=1e-4, rtol=1e-4)


def test_the_server_answers_by_its_name(distilled):
    pytest.importorskip("fastapi", reason="NO SERVER TESTS: pip install softprompt[serve]")
    from starlette.testclient import TestClient

    from softprompt.serve.engine import Engine
    from softprompt.serve.http.app import create_app
    from softprompt.serve.registry import Registry

    tuned = distilled.tuned
    registry = Registry(tuned.artifact.path.parent, tuned.lm)
    engine = Engine(tuned.lm, registry, max_tokens=2**12)
    engine.start()
    try:
        app = create_app(engine, registry, model_name="tiny", tokenizer=tuned.lm.tokenizer, context=128)
        with TestClient(app) as client:
            body = {"model": "sea", "row": {"request": "sun 1"}, "max_tokens": 6, "temperature": 0}
            reply = client.post("/v1/completions", json=body).json()
            facts = client.get("/v1/models/sea").json()["softprompt"]
    finally:
        engine.stop()
    assert reply["choices"][0]["text"] == tuned.generate("sun 1")
    assert reply["usage"]["prompt_vectors"] == 4
    assert facts["text"]["role"] == "system"
    assert facts["text"]["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()


def test_the_playground_answers_with_the_text_with_the_vectors_and_with_neither(distilled, chromium):
    """A browser reads three columns that the real engine answers."""
    from ..serve.http.conftest import serving
    from ..serve.http.test_playground import Playing

    tuned = distilled.tuned
    with serving(tuned.lm, tuned.artifact.path.parent, context=128, play_text=TEXT) as running:
        playing = Playing(chromium, running.url)
        playing.page.locator(".column").nth(2).wait_for()
        playing.page.fill("#longest", "6")
        playing.run("sun 1")
        names = ("With the text", "With the vectors: sea", "With neither: plain model")
        answers = [playing.answer(name).strip() for name in names]
        costs = [playing.column(name).locator(".cost").inner_text() for name in names]
        complaints = playing.complaints
        playing.context.close()
    assert answers == [
        plain_answer(tuned, f"{TEXT}\n\nsun 1"),
        tuned.generate("sun 1"),
        plain_answer(tuned, "sun 1"),
    ]
    assert ["vectors" in cost for cost in costs] == [False, True, False] and complaints == []
