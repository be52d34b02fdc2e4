"""Outputs of any encoding, a line for each line, and a first recipe for rows of one's own."""

from __future__ import annotations

import io
import json
import sys

import pytest

from softprompt.cli import main, streams
from softprompt.config import load_recipe
from softprompt.prepare import read_split, template_of


def under(monkeypatch, encoding: str, *arguments: object) -> tuple[int, bytes, bytes]:
    """A command whose standard streams have an encoding: its exit code and what it wrote."""
    out, err = io.BytesIO(), io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(streams, "_said", False)
        patch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding, newline="\n"))
        patch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding, newline="\n"))
        code = main([str(argument) for argument in arguments])
        sys.stdout.flush()
        sys.stderr.flush()
        return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_no_character_ends_a_command(monkeypatch, encoding, recipe, tuned):
    named = recipe.rename(recipe.with_name("Скажи 说 🙂.yaml"))
    code, out, err = under(monkeypatch, encoding, "check", named)
    assert code == 0 and b"????? ? ?.yaml" in out and b"PYTHONIOENCODING=utf-8" in err
    for command in (("methods",), ("--help",), ("inspect", tuned), ("generate", tuned, "说 🙂")):
        assert under(monkeypatch, encoding, *command)[0] == 0
    code, out, _ = under(monkeypatch, encoding, "check", named.parent / "说.yaml", "--json")
    assert code == 1 and "说" in json.loads(out.decode(encoding))["error"]["what"]


def test_half_a_pair_is_written_too(monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "utf-8"))
    assert json.loads(streams.json_text({"a": "\ud83d", "b": "é"})) == {"a": "\ud83d", "b": "é"}
    assert "é" in streams.json_text({"b": "é"})


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_blank_lines_are_answered_by_blank_lines(run, tuned, tmp_path, monkeypatch, end):
    lines = ["", "sun", "  ", "mud", "", "", "cake"] + (["", "song"] * 20 if end else [])
    text = (end or "\n").join(lines) + end
    inputs = tmp_path / "inputs.txt"
    inputs.write_bytes(text.encode())
    said = run("generate", tuned, "--file", inputs)
    answers = said.out.split("\n")[:-1]
    assert len(answers) == len(lines) and "blank lines are answered by blank lines" in said.err
    alone = {word: run("generate", tuned, word).out.strip() for word in ("sun", "mud", "cake", "song")}
    assert answers == [alone.get(line, "") for line in lines]
    assert run("generate", tuned, "--file", inputs, "--json").json["outputs"] == answers
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert run("generate", tuned, "--file", "-").out == said.out
    objects = "\n".join(json.dumps({"input": line}) if line.strip() else line for line in lines)
    monkeypatch.setattr(sys, "stdin", io.StringIO(objects))
    assert run("generate", tuned, "--file", "-").out == said.out


def test_files_of_inputs_may_be_utf16_and_must_hold_something(run, tuned, tmp_path):
    inputs = tmp_path / "in.txt"
    inputs.write_bytes("sun\nmüd\n".encode("utf-16"))
    assert run("generate", tuned, "--file", inputs).out.count("\n") == 2
    inputs.write_bytes("müd".encode("latin-1"))
    assert "iconv -f cp1252" in run("generate", tuned, "--file", inputs).err
    inputs.write_bytes(b"\n\n")
    assert "no inputs" in run("generate", tuned, "--file", inputs).err
    assert "no such file" in run("generate", tuned, "--file", tmp_path / "none.txt").err


def test_a_first_recipe_for_rows_of_ones_own(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    secret = "a customer's words"
    lines = [f"{secret} {i},{('calm', 'brisk')[i % 2]},an answer {i}" for i in range(30)]
    (tmp_path / "data.csv").write_text("message,voice,reply\n" + "\n".join(lines))
    for command in ("tune", "check", "search", "compare"):
        arguments = [command, "data.csv", *(["--over", "lr=1e-3"] if command == "search" else [])]
        if command == "compare":
            continue  # it takes rows
        said = run(*arguments)
        assert said.code == 1 and "softprompt init --rows data.csv" in said.err and secret not in said.err
    said = run("init", "mine", "--rows", "data.csv")
    assert said.code == 0 and "voice" in said.out
    recipe = load_recipe("mine/recipe.yaml")
    assert (recipe.data.prompt_field, recipe.task.kind) == ("voice", "generation")
    assert recipe.output == "mine/runs/prompt"
    train, held = read_split(recipe)
    assert len(train) + len(held) == 30 and template_of(recipe).render(train[0]).target.startswith(
        "an answer"
    )
    assert "there already" in run("init", "mine", "--rows", "data.csv").err
    (tmp_path / "labels.jsonl").write_text(
        "".join(json.dumps({"text": f"some words {i}", "label": "ab"[i % 2]}) + "\n" for i in range(30))
    )
    assert run("init", "--rows", "labels.jsonl", "--json").json["task"] == "classification"
