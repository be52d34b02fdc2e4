"""Outputs of any encoding, a line for each line, and a first recipe for rows of one's own."""

from __future__ import annotations

import gzip
import io
import json
import sys

import pytest

from softprompt.build import template_of
from softprompt.cli import main, streams
from softprompt.config.load import load_recipe
from softprompt.data.recipe_rows import read_split


def under(monkeypatch, encoding: str, *arguments: object) -> tuple[int, bytes, bytes]:
    """A command whose standard streams have an encoding: its exit code and what it wrote."""
    out, err = io.BytesIO(), io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(streams, "_noted", False)
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
    message = run("generate", tuned, "--file", inputs)
    answers = message.out.split("\n")[:-1]
    assert len(answers) == len(lines) and "blank lines are answered by blank lines" in message.err
    alone = {word: run("generate", tuned, word).out.strip() for word in ("sun", "mud", "cake", "song")}
    assert answers == [alone.get(line, "") for line in lines]
    assert run("generate", tuned, "--file", inputs, "--json").json["outputs"] == answers
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert run("generate", tuned, "--file", "-").out == message.out
    objects = "\n".join(json.dumps({"input": line}) if line.strip() else line for line in lines)
    monkeypatch.setattr(sys, "stdin", io.StringIO(objects))
    assert run("generate", tuned, "--file", "-").out == message.out


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
        message = run(*arguments)
        assert (
            message.code == 1
            and "softprompt init --rows data.csv" in message.err
            and secret not in message.err
        )
    message = run("init", "mine", "--rows", "data.csv")
    assert message.code == 0 and "voice" in message.out
    recipe = load_recipe("mine/recipe.yaml")
    assert (recipe.data.prompt_field, recipe.task.kind) == ("voice", "generation")
    assert recipe.output == "mine/runs/prompt"
    train, held = read_split(recipe)
    assert len(train) + len(held) == 30 and template_of(recipe).render(train[0]).target.startswith(
        "an answer"
    )
    assert "already" in run("init", "mine", "--rows", "data.csv").err
    (tmp_path / "labels.jsonl").write_text(
        "".join(json.dumps({"text": f"some words {i}", "label": "ab"[i % 2]}) + "\n" for i in range(30))
    )
    assert run("init", "--rows", "labels.jsonl", "--json").json["task"] == "classification"


def standard_input(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))


def test_blank_lines_of_json_lines_are_answered_too(run, tuned, tmp_path):
    inputs = tmp_path / "in.jsonl"
    inputs.write_text('{"input": "sun"}\n\n{"input": "mud"}\n\n')
    message = run("generate", tuned, "--file", inputs)
    answers = message.out.split("\n")[:-1]
    assert [bool(answer) for answer in answers] == [True, False, True, False], message.err
    packed = tmp_path / "in.ndjson.gz"
    packed.write_bytes(gzip.compress(inputs.read_bytes()))
    assert run("generate", tuned, "--file", packed).out == message.out
    inputs.write_text('[{"input": "sun"},\n\n{"input": "mud"}]')  # a list has rows, and no lines
    assert run("generate", tuned, "--file", inputs).out.split("\n") == [answers[0], answers[2], ""]
    texts = tmp_path / "in.txt.gz"
    texts.write_bytes(gzip.compress(b"sun\n\nmud\n\n"))
    assert run("generate", tuned, "--file", texts).out == message.out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9\n", "standard input:1: not UTF-8 text"),
        (b"a\0b\n", "holds NUL characters"),
        (b'[{"input": "sun"},]', "there is a comma after the last row"),
        (b'{"input": "sun"}\nmud\n', "standard input:2: broken JSON"),
        (b"\n \n", "no inputs"),
    ],
)
def test_standard_input_that_cannot_be_read_says_why(run, tuned, monkeypatch, content, message):
    standard_input(monkeypatch, content)
    reply = run("generate", tuned, "--file", "-")
    assert reply.code == 1 and message in reply.err


def test_rows_come_from_standard_input(run, tuned, recipe, monkeypatch):
    one = run("generate", tuned, "sun").out
    for content in ("sun\n".encode("utf-16"), b'[{"input": "sun"}]', b'\xef\xbb\xbf{"input": "sun"}'):
        standard_input(monkeypatch, content)
        assert run("generate", tuned, "--file", "-").out == one
    rows = b'{"input": "sun", "target": "good"}\n\n{"input": "mud", "target": "bad"}\n'
    standard_input(monkeypatch, rows)
    from_input = run("eval", tuned, "--data", "-", "--json").json
    (recipe.parent / "two.jsonl").write_bytes(rows)
    from_file = run("eval", tuned, "--data", recipe.parent / "two.jsonl", "--json").json
    assert from_input | {"data": ""} == from_file | {"data": ""} and from_input["n"] == 2
    for content, message in (
        (b"", "no rows"),
        (b"input,target\na,b\n", "write other text or tables to a file"),
    ):
        standard_input(monkeypatch, content)
        assert message in run("eval", tuned, "--data", "-").err
    for command in (("check", recipe, "data.train=-"), ("init", recipe.parent / "new", "--rows", "-")):
        assert "not read from standard input here" in run(*command).err
    assert "the text that names it is empty" in run("eval", tuned, "--data", "").err


class Endless:
    """A stream of one line without an end, which fails where it is read for long."""

    def __init__(self) -> None:
        self.blocks = 0
        self.buffer = self

    def read(self, size: int) -> bytes:
        self.blocks += 1
        assert self.blocks < 100
        return b"a" * size


def test_a_line_without_an_end_is_refused_while_it_is_read(run, tuned, monkeypatch):
    monkeypatch.setattr("softprompt.data.text_files.MAX_ROW", 10_000)
    monkeypatch.setattr("softprompt.data.text_files.BLOCK", 1000)
    monkeypatch.setattr(sys, "stdin", Endless())
    assert "a row has at most 10,000 bytes" in run("generate", tuned, "--file", "-").err


def test_names_that_no_file_can_have(run, recipe, monkeypatch):
    name = "n" * 300
    for command in (("init", name), ("report", name), ("serve", name), ("inspect", name)):
        message = run(*command)
        assert message.code == 1 and "File name too long" in message.err, command
    for given in (name, "a\0b"):
        for key in ("output", "compare.output", "train.cache_folder"):
            message = run("check", recipe, f"{key}={given}")
            assert message.code == 1 and f"{key}: '" in message.err and "cannot be a folder" in message.err
