"""Files that are no recipe, recipes that are too large, and the paths of recipes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from softprompt._system.paths import ROWS
from softprompt.config.load import load_recipe, recipe_from_dict
from softprompt.data.sources import FORMATS
from softprompt.errors import SoftPromptError


def fails(call) -> str:
    with pytest.raises(SoftPromptError) as caught:
        call()
    return str(caught.value)


def bomb(entry: str, end: str) -> str:
    lines = [f"k0: &k0 {entry}"]
    lines += [f"k{i}: &k{i} " + end.format(",".join([f"*k{i - 1}"] * 10)) for i in range(1, 12)]
    return "\n".join(lines)


def steps(value: str) -> str:
    return f"data: rows.jsonl\ntrain:\n  steps: {value}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bomb("[x, x]", "[{}]"), "more than 20,000 values"),
        (bomb("{a: 1}", "{{<<: [{}]}}"), "unknown key 'k0'"),  # merged, each key once
        ("a: &a\n  <<: *a\n", "an alias that holds itself"),
        ("data: " + "[" * 10_000 + "]" * 10_000, "more than 40 deep"),
        ("data: " + "{a: " * 10_000, "more than 40 deep"),
        ("data: " + "[1," * 10_000, "more than 40 deep"),
        (steps("!!int abc"), "r.yaml:3: not valid YAML: a value marked as int"),
        (steps("!!timestamp 2020-01-01"), "marked as timestamp"),
        (steps("!!python/object:os.system x"), "could not determine a constructor"),
        (steps("9" * 5000), "a number of so many digits"),
        (steps("1" + "0" * 400), "less than or equal to"),
        (steps("x" * 3000), "train.steps: 'xxx"),
        ("# " + "x" * 300_000, "too long to be a recipe"),
        ("words " * 2000, "not text\n"),
    ],
    ids=lambda value: value[:24],
)
def test_a_recipe_that_is_too_much_is_an_error(tmp_path, text, expected):
    (tmp_path / "r.yaml").write_text(text)
    message = fails(lambda: load_recipe(tmp_path / "r.yaml"))
    assert expected in message and len(message) < 4000


@pytest.mark.parametrize(
    "override",
    [
        "task.labels=" + "[" * 10_000,
        "method.x=" + "{a: " * 5000,
        "steps=" + "9" * 5000,
        "steps=!!int abc",
        "x" * 3000 + "=1",
    ],
    ids=lambda value: value[:12],
)
def test_an_override_that_is_too_much_is_an_error(override):
    assert len(fails(lambda: recipe_from_dict({"data": "r.jsonl"}, overrides=[override]))) < 1000


SECRET = "a customer's words"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.csv", f"text,label\n{SECRET},good\nx,bad\n"),
        ("data.yaml", f"text;label\n{SECRET};good\nx;bad\n"),
        ("data.jsonl", json.dumps({"text": SECRET}) + "\n" + json.dumps({"text": "b"})),
        ("lines.yaml", json.dumps({"text": SECRET}) + "\n" + json.dumps({"text": "b"})),
        ("data.json", json.dumps([{"text": SECRET}], indent=1)),
        ("data.parquet", "PAR1"),
        ("data.csv.gz", "x"),
    ],
)
def test_rows_given_as_a_recipe_are_named_and_not_quoted(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    message = fails(lambda: load_recipe(tmp_path / name))
    assert "holds rows" in message and f"softprompt init --rows {tmp_path / name}" in message
    assert SECRET not in message


def test_other_things_given_as_a_recipe_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "page.html").write_text(f"<!doctype html><p>{SECRET}")
    (tmp_path / "bin.yaml").write_bytes(b"a: 1\0\1")
    (tmp_path / "w.safetensors").write_bytes(b"x")
    for folder, file in {
        "tuned": "softprompt.json",
        "model": "config.json",
        "rows": "a.csv",
        "mine": "recipe.yaml",
        "c": "study.json",
    }.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text("{}")
    for name, printed in {
        "pipe.yaml": "is a pipe",
        "page.html": "is a page",
        "bin.yaml": "binary",
        "w.safetensors": "a model's file",
        "tuned": "a tuned prompt",
        "model": "is a model",
        "rows": "init --rows",
        "mine": "recipe.yaml",
        "c": "softprompt report",
        "n" * 300: "File name too long",
        "a\0b": "NUL",
    }.items():
        message = fails(lambda n=name: load_recipe(tmp_path / n))
        assert printed in message and SECRET not in message


def test_paths_belong_to_the_recipe_or_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", "runs")
    file = tmp_path / "project" / "r.yaml"
    file.write_text(
        "data: rows.jsonl\noutput: out\ntrain: {cache_folder: kv}\ncompare: {output: cmp, unseen: u.csv}\n"
    )
    read = load_recipe("project/r.yaml")
    assert (read.output, read.compare.output) == ("project/out", "project/cmp")
    assert read.data.train == str(tmp_path / "project/rows.jsonl")
    assert read.train.cache_folder == "project/kv"
    assert read.compare.unseen is not None and read.compare.unseen.file == str(tmp_path / "project/u.csv")
    over = load_recipe("project/r.yaml", ["output=out", "data=rows.jsonl", "cache_folder=~/kv"])
    assert (over.output, over.data.train) == ("out", str(tmp_path / "rows.jsonl"))
    assert over.train.cache_folder == str(tmp_path / "home/kv")
    assert load_recipe("project/r.yaml", ["output=~/x"]).output == str(tmp_path / "home/x")
    assert load_recipe("project/r.yaml", ["output=$PLACE/x"]).output == "runs/x"
    assert recipe_from_dict({"data": "~/r.csv", "output": "~/x"}).output == str(tmp_path / "home/x")
    file.write_text("data: rows.jsonl\n")
    assert load_recipe("project/r.yaml").output == "project/runs/prompt"
    again = recipe_from_dict(read.to_dict())
    assert again == read and again.fingerprint() == read.fingerprint()
    for odd in ("~nobody_at_all/x", "$NOT_SET_ANYWHERE/x"):
        assert "names no folder" in fails(lambda o=odd: recipe_from_dict({"data": "r", "output": o}))
    assert not Path("~").exists()


def test_formats_are_those_that_a_recipe_is_distinguished_from():
    assert set(FORMATS) == set(ROWS)


def test_a_recipe_may_begin_with_merged_keys(tmp_path):
    (tmp_path / "r.yaml").write_text("<<: {model: m}\ndata: d.jsonl\n")
    assert load_recipe(tmp_path / "r.yaml").model.id == "m"
