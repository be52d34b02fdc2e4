"""`export --to llama.cpp` through the command line, and the example that restores what it wrote."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from softprompt.interop.llama_cpp import engine

from ..conftest import tiny_model

pytest.importorskip("xllamacpp")
EXAMPLE = Path(__file__).parents[2] / "examples/llama_cpp_slots.py"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    from ..interop.gguf_file import write

    return write(tiny_model("llama"), tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_export_and_the_example(run, styles, gguf, tmp_path, capsys):
    slots = tmp_path / "slots"
    words = ["export", styles, "--to", "llama.cpp", "--gguf", gguf, "--slots", 2, "--cache-type", "f32"]
    found = run(*words, "--out", slots, "--json").json["slots"]
    assert set(found) == {"joke", "fact"} and all(len(slot["tokens"]) == 3 for slot in found.values())
    server = engine.start(gguf, slots, cache_type="f32", slots=2)
    ask = runpy.run_path(str(EXAMPLE))["main"]
    capsys.readouterr()
    ask([str(slots), "sun", "--server", server.listening_address, "--tokens", "5"])
    said = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    for name, text in said.items():  # trained on "Say: {{ input }}", which the example renders
        assert (
            json.loads(text) == run("generate", styles, "sun", "--prompt", name, "--json").json["outputs"][0]
        )
    assert set(said) == {"joke", "fact"}


def test_a_state_of_the_engines_own(run, styles, gguf, tmp_path):
    (tmp_path / "slot.bin").write_bytes(engine.saved_state(gguf))
    words = ["export", styles, "--to", "llama.cpp", "--prompt", "fact", "--state", tmp_path / "slot.bin"]
    said = run(*words, "--out", tmp_path / "slots")
    assert said.code == 0 and "fact  fact.bin  3 tokens" in said.out


def test_refusals(run, styles, tuned, gguf, tmp_path):
    words = ["--to", "llama.cpp", "--out", tmp_path / "no"]
    said = run("export", styles, *words)
    assert said.code == 1 and "which llama.cpp will run it is not said" in said.err
    said = run("export", styles, *words, "--state", tmp_path / "slot.bin")
    assert said.code == 1 and "no file" in said.err
    said = run("export", tuned, *words, "--gguf", gguf)
    assert said.code == 1 and "stand after the input" in said.err
    assert not (tmp_path / "no").exists()
