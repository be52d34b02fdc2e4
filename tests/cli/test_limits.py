"""At the command line: a model's own limit is named as the reason, and what it raises is no traceback."""

from __future__ import annotations

import pytest
from transformers.models.llama.modeling_llama import LlamaModel

from softprompt.lm.families import tiny

from ..conftest import tiny_tokenizer
from .conftest import make_project, write_rows

LONG = "x" * 80  # a token a character; the border is at 64


@pytest.fixture(scope="module")
def longrope(tmp_path_factory):
    folder = tmp_path_factory.mktemp("longrope")
    tiny("phi3 (longrope)", max_position_embeddings=256).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_rope_that_depends_on_the_length_is_the_reason(run, tmp_path, longrope):
    recipe = make_project(tmp_path, longrope)
    assert run("tune", recipe).code == 0
    output = run("generate", tmp_path / "out", LONG)
    assert output.code == 1 and "its context is 64 tokens" in output.err and "longest row" in output.err
    write_rows(tmp_path / "train.jsonl", [{"input": LONG, "target": "good"}] * 4)
    for command in ("check", "tune"):
        output = run(command, recipe, *(["--overwrite"] if command == "tune" else []))
        assert output.code == 1 and "its context is 64 tokens" in output.err
        assert "beyond 64 positions it rotates the keys" in output.err


def test_what_a_model_raises_is_an_error_and_v_shows_its_cause(run, tuned, monkeypatch):
    def broken(*args, **named):
        raise IndexError("no such column")

    monkeypatch.setattr(LlamaModel, "forward", broken)
    output = run("generate", tuned, "sun")
    assert output.code == 1 and "IndexError: no such column" in output.err and "Traceback" not in output.err
    output = run("generate", tuned, "sun", "-v")
    assert (
        output.code == 1
        and "Traceback" in output.err
        and output.err.index("Traceback") < output.err.index("why:")
    )
