"""The gateway needs no model: a process that runs one loads no torch until vectors are read."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.serve.gateway.standin import StandIn

from softprompt import methods
from softprompt.artifacts.interop import foreign
from softprompt.artifacts.interop.kv_cache.batch import compile_all, sources
from softprompt.methods.base import Setting

pytestmark = pytest.mark.process
HEAVY = ("torch", *(f"softprompt.{room}" for room in ("lm", "methods", "build", "training", "evaluation")))
LISTING = """
import sys
from pathlib import Path
from fastapi.testclient import TestClient
from transformers import PreTrainedTokenizerFast
from softprompt.serve.gateway.gateway import create_gateway
compiled, base, url = sys.argv[1:]
tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
app = create_gateway(Path(compiled), url, tokenizer, model=base, name="tiny")
with TestClient(app, base_url="http://localhost") as client:
    print(*(model["id"] for model in client.get("/v1/models").json()["data"]))
"""


def loaded_by(code: str, *arguments: object) -> tuple[str, set[str]]:
    """What a fresh process prints, and which of the heavy modules it has loaded at its end."""
    end = "\nimport sys; print(*sys.modules)"
    command = [sys.executable, "-c", code + end, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *printed, modules = done.stdout.splitlines()
    assert "softprompt.serve.http.app" in modules.split()
    return "".join(printed), set(HEAVY) & set(modules.split())


def test_importing_the_gateway_loads_no_model():
    assert loaded_by("import softprompt.serve.gateway.gateway") == ("", set())


def test_a_gateway_lists_its_prompts_without_a_model(tmp_path, llama):
    setting, options = Setting(llama, ("default",)), {"length": 3}
    state = methods.build("prompt-tuning", setting, options).state_dict()
    foreign.save(tmp_path / "runs/style", llama, "prompt-tuning", options, state, setting.prompts, "a test")
    assert len(list(compile_all(sources([tmp_path / "runs"]), llama, tmp_path / "compiled"))) == 1
    llama.tokenizer.save_pretrained(tmp_path / "base")
    vllm = StandIn()
    try:
        assert loaded_by(LISTING, tmp_path / "compiled", tmp_path / "base", vllm.url) == ("tiny style", set())
    finally:
        vllm.close()
