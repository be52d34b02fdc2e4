"""`export --to llama.cpp` through the command line, and the example that restores what it wrote."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from softprompt.artifacts.interop.llama_cpp import engine

from ..conftest import tiny_model

pytest.importorskip("xllamacpp")
EXAMPLE = Path(__file__).parents[2] / "examples/llama_cpp_slots.py"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    from ..artifacts.interop.gguf_file import write

    return write(tiny_model("llama"), tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_export_and_the_example(run, styles, gguf, tmp_path, capsys):
    slots = tmp_path / "slots"
    words = ["export", styles, "--to", "llama.cpp", "--gguf", gguf, "--slots", 2, "--cache-type", "f32"]
    output = run(*words, "--out", slots, "--json").json
    found = output["slots"]
    assert output["tried"] == f"xllamacpp {engine.version()}"
    assert set(found) == {"joke", "fact"} and all(len(slot["tokens"]) == 3 for slot in found.values())
    server = engine.Engine(gguf, cache_type="f32", slots=2).start(slots)
    ask = runpy.run_path(str(EXAMPLE))["main"]
    capsys.readouterr()
    ask([str(slots), "sun", "--server", server.listening_address, "--tokens", "5"])
    output = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    for name, text in output.items():  # trained on "Say: {{ input }}", which the example renders
        assert (
            json.loads(text) == run("generate", styles, "sun", "--prompt", name, "--json").json["outputs"][0]
        )
    assert set(output) == {"joke", "fact"}


def test_the_example_does_not_believe_a_server_that_restores_nothing():
    found = runpy.run_path(str(EXAMPLE))
    slot = {"prompt": "fact", "file": "fact.bin", "tokens": [3, 4, 5]}
    answers = {"restore": {"n_restored": 3}, "completion": {"content": "a", "timings": {"cache_n": 0}}}
    found["ask"].__globals__["post"] = lambda url, _: answers["restore" if "action=" in url else "completion"]
    with pytest.raises(SystemExit, match="restores nothing, though it reports 3 restored tokens"):
        found["ask"]("http://nowhere", 0, slot, "sun", 5)
    answers["restore"] = {"n_restored": 2}
    with pytest.raises(SystemExit, match="restored 2 of 3 tokens"):
        found["restore"]("http://nowhere", 0, slot)


def test_a_state_of_the_engines_own(run, styles, gguf, tmp_path):
    (tmp_path / "slot.bin").write_bytes(engine.Engine(gguf).saved_state())
    words = ["export", styles, "--to", "llama.cpp", "--prompt", "fact", "--state", tmp_path / "slot.bin"]
    output = run(*words, "--out", tmp_path / "slots")
    assert output.code == 0 and "fact  fact.bin  3 tokens" in output.out
    assert "your engine was not tried" in output.out and "cache_n" in output.out
    (tmp_path / "slot.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in run(*words, "--out", tmp_path / "again").err


def test_refusals(run, styles, tuned, gguf, tmp_path):
    words = ["--to", "llama.cpp", "--out", tmp_path / "no"]
    output = run("export", styles, *words)
    assert output.code == 1 and "neither --gguf nor --state was given" in output.err
    output = run("export", styles, *words, "--state", tmp_path / "slot.bin")
    assert output.code == 1 and "no file" in output.err
    output = run("export", tuned, *words, "--gguf", gguf)
    assert output.code == 1 and "after the input" in output.err
    assert not (tmp_path / "no").exists()
