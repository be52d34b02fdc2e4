"""A distilled prompt goes where a tuned prompt goes: eval, compose, compile, PEFT and the server."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

import softprompt
from softprompt.cli import main
from softprompt.data.collate import batch_of_ids
from softprompt.distillation import answers

from .test_distill import REQUESTS, SETTINGS, TEXT


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
