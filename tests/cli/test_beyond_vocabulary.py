"""Saved models whose tokenizer or settings name tokens that they have no embedding for."""

from __future__ import annotations

import json

import pytest
from tests.conftest import VOCAB, tiny_model, tiny_tokenizer

from softprompt.lm import families
from softprompt.lm.loading import load

from .conftest import make_project, write_rows

GENERATION = "task: {kind: generation, max_new_tokens: 5}"


def saved(folder, model=None, tokenizer=None, **files):
    (model or tiny_model("llama")).save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    for name, changes in files.items():
        path = folder / f"{name}.json"
        found = json.loads(path.read_text("utf-8")) if path.exists() else {}
        path.write_text(json.dumps(found | changes), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A Llama of 101 embeddings, and a tokenizer of 103 tokens: <5> and <6> have none."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<{i}>" for i in range(6)])
    return saved(tmp_path_factory.mktemp("extended"), tokenizer=tokenizer)


def test_rows_without_the_new_tokens_are_trained_and_those_with_them_named(run, extended, tmp_path):
    recipe = make_project(tmp_path, extended, task=GENERATION)
    for command in (["check", recipe], ["tune", recipe, "steps=1"]):
        output = run(*command)
        assert (
            output.code == 0
            and "2 tokens that the model has no embedding for: '<4>', '<5>'" in output.out + output.err
        )
    assert run("generate", tmp_path / "out", "a <3> b").code == 0  # the last that has an embedding
    output = run("generate", tmp_path / "out", "a <5> b")
    assert (
        output.code == 1
        and "no embedding for the token '<5>'" in output.err
        and "remove it from the text" in output.err
    )
    rows = write_rows(tmp_path / "bad.jsonl", [{"input": "a", "target": "<4>"}])
    for command in (["check", recipe], ["tune", recipe, "--overwrite"]):
        output = run(*command, f"data.train={rows}")
        assert (
            output.code == 1 and "bad.jsonl:1: the model has no embedding for the token '<4>'" in output.err
        )
    output = run("eval", tmp_path / "out", "--data", rows)
    assert output.code == 1 and "bad.jsonl:1: the model has no embedding" in output.err


@pytest.mark.parametrize("added", ["eos_token", "chat"])
def test_new_tokens_that_no_row_holds_are_told_of_the_tokenizer(run, tmp_path, added):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<{i}>" for i in range(VOCAB - len(tokenizer))])
    tokenizer.add_special_tokens({"eos_token": "<new>"} if added == "eos_token" else {"pad_token": "<new>"})
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<new>{% endfor %}"
    chat = "template: {chat: true}" if added == "chat" else "template: {}"
    recipe = make_project(
        tmp_path, saved(tmp_path / "model", tokenizer=tokenizer), task=GENERATION, template=chat
    )
    output = run("check", recipe)
    assert output.code == 1 and "no embedding for the token '<new>'" in output.err
    assert (
        "the tokenizer that the model was trained with" in output.err and "remove it from" not in output.err
    )


@pytest.mark.parametrize(
    ("family", "file", "key"),
    [
        ("llama", "config", "pad_token_id"),
        ("bert", "config", "pad_token_id"),
        ("bart", "config", "decoder_start_token_id"),
        ("bart", "generation_config", "decoder_start_token_id"),
        ("bart", "generation_config", "forced_bos_token_id"),
    ],
)
def test_an_id_that_is_looked_up_must_have_an_embedding(run, tmp_path, family, file, key):
    model = tiny_model("llama") if family == "llama" else families.tiny(family)
    made = saved(tmp_path / "model", model, **{file: {key: VOCAB}})
    output = run("check", make_project(tmp_path, made, task=GENERATION))
    assert output.code == 1 and f"its {file}.json says {key}=101, but it has 101 embeddings" in output.err
    (made / f"{file}.json").write_text(
        json.dumps(json.loads((made / f"{file}.json").read_text("utf-8")) | {key: VOCAB - 1}),
        encoding="utf-8",
    )
    assert load(str(made)).vocabulary == VOCAB  # as its fix says


@pytest.mark.parametrize("key", ["eos_token_id", "bos_token_id", "pad_token_id"])
def test_ids_that_are_only_compared_may_be_any(run, tmp_path, key):
    found = {"config": {key: -1 if key == "pad_token_id" else 150}, "generation_config": {key: 150}}
    recipe = make_project(tmp_path, saved(tmp_path / "model", **found), task=GENERATION)
    assert run("tune", recipe, "steps=1").code == 0
    assert run("generate", tmp_path / "out", "a").code == 0
