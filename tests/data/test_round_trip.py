"""Targets that do not come back, written end tokens, half characters, tokens without an embedding."""

from __future__ import annotations

import pytest
from tests.conftest import tiny_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from softprompt._system.characters import check_whole, is_whole, texts_in
from softprompt.config.load import recipe_from_dict
from softprompt.data.encode import Encoder
from softprompt.data.row_notes import remarks
from softprompt.data.task import ModelSide, Task
from softprompt.data.template import Template
from softprompt.errors import SoftPromptError


def words() -> PreTrainedTokenizerFast:
    """Build a tokenizer of lower-case words; others are unknown, and all white space is one space."""
    names = ["<unk>", "</s>", "paris", "city", "one", "two", ":"]
    raw = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="</s>")


def kinds(encoder: Encoder, *targets: str) -> dict[str, int]:
    examples = encoder.encode_rows([{"input": f"x {i}", "target": t} for i, t in enumerate(targets)])
    found = remarks(encoder, examples)
    return {remark.kind: remark.count for remark in found if remark.kind != "unread"}  # every input has an x


@pytest.mark.parametrize("target", ["{ paris }", "one\ntwo", "Paris", "one  two", "\tone two"])
def test_targets_that_do_not_come_back_are_counted(target):
    found = kinds(Encoder(words(), Template()), "one two", target, "city : paris")
    assert found == ({"outer space": 1} if target.strip() == "one two" else {"not back": 1})


def test_labels_with_unknown_characters_are_counted():
    encoder = Encoder(words(), Template(), Task("classification"))
    assert kinds(encoder, "one {", "two", "one {") == {"unknown": 1}


def test_choices_and_the_words_of_labels_are_named_by_what_is_unknown_of_them():
    tokenizer = words()
    encoder = Encoder(tokenizer, Template(choices_field="c"), Task("choice"))
    rows = [{"input": f"x {i}", "target": "two", "c": ["one {", "two"]} for i in range(2)]
    (output,) = [r.text for r in remarks(encoder, encoder.encode_rows(rows)) if r.kind == "unknown"]
    assert output.startswith("1 choice has") and "'one {'" in output
    labelled = Encoder(
        tokenizer,
        Template(),
        Task("classification", labels=["p", "n"], verbalizer={"p": "one", "n": "two }"}),
    )
    found = remarks(labelled, labelled.encode_rows([{"input": "one", "target": "p"}]))
    assert [(r.kind, "'two }'" in r.text) for r in found] == [("unknown", True)]


def test_references_that_do_not_come_back_are_counted():
    encoder = Encoder(words(), Template(references_field="r"))
    rows = [
        {"input": "one", "target": "one", "r": ["one", "two {"]},
        {"input": "two", "target": "one", "r": ["one"]},
    ]
    (found,) = remarks(encoder, encoder.encode_rows(rows))
    assert (found.kind, found.count) == ("not back", 1) and "the row (a reference)" in found.text
    assert found.text.endswith("lost characters: '{'")


def test_inputs_with_unknown_characters_are_counted():
    encoder = Encoder(words(), Template())
    rows = [{"input": text, "target": "one"} for text in ("paris", "PARIS é", "one", "{ }")]
    found = remarks(encoder, encoder.encode_rows(rows))
    assert [(r.kind, r.count) for r in found] == [("unread", 2)] and "<unk>" in found[0].text
    tagger = Encoder(tiny_tokenizer(), Template())  # it knows every byte, and has no unknown token
    assert remarks(tagger, tagger.encode_rows([{"input": "paris", "target": "one"}])) == []


def test_labels_that_differ_by_case_are_said_whatever_space_is_around_them():
    assert kinds(Encoder(tiny_tokenizer(), Template(), Task("classification")), "bad", "BAD ", "x") == {
        "case": 1
    }


def test_end_tokens_at_the_end_are_taken_off_and_within_refused():
    tokenizer = tiny_tokenizer()
    encoder = Encoder(tokenizer, Template(references_field="refs"))
    plain = encoder.encode({"input": "q", "target": "Paris", "refs": ["Paris"]})
    written = encoder.encode({"input": "q", "target": "Paris <end><end>", "refs": ["Paris<end>"]})
    assert written.target_ids == plain.target_ids and written.rendered.references == ("Paris",)
    assert [remark.kind for remark in remarks(encoder, [plain, written])] == ["end"]
    for target, output in (("a<end>b", "within its text"), ("<end>", "the target is empty")):
        with pytest.raises(SoftPromptError, match=output):
            encoder.encode({"input": "q", "target": target, "refs": None})
    labelled = Encoder(tokenizer, Template(), Task("classification"))
    assert kinds(labelled, "bad<end>", "good<end>", "bad") == {"end": 2}
    assert labelled.labels == ("bad", "good")


def test_half_characters_are_refused_where_they_are_read():
    encoder = Encoder(tiny_tokenizer(), Template(prompt_field="p"), Task(prompts=("a",)))
    good = {"input": "x", "target": "y", "p": "a"}
    for field in good:
        with pytest.raises(SoftPromptError, match=f"field '{field}' holds half a character"):
            encoder.encode({**good, field: "cut \ud83d"})
    assert encoder.encode({**good, "unused": "\ud83d"}).target_ids
    with pytest.raises(SoftPromptError, match="half a character"):
        encoder.encode("caf\udce9", with_target=False)
    with pytest.raises(SoftPromptError, match=r"task\.labels\.1: .*unicode"):
        recipe_from_dict(
            {"data": "rows.jsonl", "task": {"kind": "classification", "labels": ["a", "\ud83d"]}}
        )
    assert is_whole("café 🙂") and check_whole("é", "it") == "é"
    assert dict(texts_in({"a": ["x", {"b": "y"}]}))["a.1.b"] == "y"


def test_tokens_without_an_embedding_are_named_with_the_row():
    tokenizer = tiny_tokenizer()
    rows = len(tokenizer)
    tokenizer.add_tokens(["<ITEM>"])
    encoder = Encoder(tokenizer, Template(), model=ModelSide(vocabulary=rows))
    assert kinds(encoder, "good") == {"vocabulary": 1}
    for row in ({"input": "<ITEM>", "target": "y"}, {"input": "x", "target": "<ITEM>"}):
        with pytest.raises(SoftPromptError, match=r"the row: the model has no embedding for .*<ITEM>"):
            encoder.encode(row)
    choices = Encoder(tokenizer, Template(choices_field="c"), Task("choice"), ModelSide(vocabulary=rows))
    with pytest.raises(SoftPromptError, match="remove it from the text"):  # though it is not the target
        choices.encode({"input": "x", "target": "y", "c": ["y", "<ITEM>"]})
    with pytest.raises(SoftPromptError, match="label '<ITEM>'"):
        Encoder(
            tokenizer, Template(), Task("classification", labels=["<ITEM>", "b"]), ModelSide(vocabulary=rows)
        )
