"""What a constraint takes, refuses, and says of one that cannot be checked."""

from __future__ import annotations

import pytest

from softprompt.compare.measures.constraints import Constraint
from softprompt.errors import SoftPromptError

SCHEMA = {"type": "object", "required": ["name"], "properties": {"age": {"type": "integer", "minimum": 0}}}


@pytest.mark.parametrize(
    ("written", "right", "wrong"),
    [
        ({"labels": ["good", "bad"]}, [" good\n", "bad"], ["Good", "good.", ""]),
        ({"json": True}, ['{"a": 1}', "[]", "3"], ["{a: 1}", "NaN", "", '{"a": 1} so', "[" * 100_000]),
        ({"json": SCHEMA}, ['{"name": "x", "age": 3}'], ['{"age": 3}', '{"name": 1, "age": -1}', "[]"]),
        ({"max_words": 3}, ["one two three", "", "a-b c\nd"], ["one two three four"]),
        ({"max_tokens": 4}, ["four", " four "], ["fives"]),
        ({"regex": r"^\d+$"}, ["12"], ["a12", "1 2"]),
        ({"regex": r"\bsea\b"}, ["by the sea."], ["seaside"]),
        ({"labels": [1, 2]}, ["1"], ["3"]),
    ],
)
def test_answers_that_hold_and_do_not(written, right, wrong):
    rule = Constraint.parse(written)
    assert [text for text in right if not rule.holds(text, len)] == []
    assert [text for text in wrong if rule.holds(text, len)] == []
    assert rule.parts == list(written)


def test_all_parts_must_hold_and_the_broken_ones_are_named():
    rule = Constraint.parse({"json": True, "max_words": 2, "regex": "^{"})
    assert rule.broken('{"a":1}') == []
    assert rule.broken("so it goes") == ["json", "max_words", "regex"]
    assert str(rule) == "json true, max_words 2, regex ^{"


@pytest.mark.parametrize(
    ("written", "output"),
    [
        ({}, "a mapping with a key"),
        ("short", "a mapping with a key"),
        ({"max_word": 3}, "did you mean 'max_words'"),
        ({"labels": "good"}, "a list of texts"),
        ({"labels": True}, "it has none"),
        ({"json": {"type": "objekt"}}, "not a JSON schema, at type"),
        ({"json": "yes"}, "true, or a JSON schema"),
        ({"max_words": 0}, "from 1 up, not 0"),
        ({"max_tokens": True}, "from 1 up, not True"),
        ({"max_tokens": 2.5}, "from 1 up"),
        ({"regex": "("}, "not a regular expression"),
        ({"regex": 3}, "a regular expression, not 3"),
    ],
)
def test_mistakes_are_named(written, output):
    with pytest.raises(SoftPromptError, match=output) as caught:
        Constraint.parse(written)
    assert caught.value.fix or "known" in caught.value.why


def test_tokens_are_not_guessed():
    with pytest.raises(SoftPromptError, match="needs a tokenizer"):
        Constraint.parse({"max_tokens": 3}).holds("a")


def test_schemas_are_not_downloaded():
    rule = Constraint.parse({"json": {"$ref": "https://example.com/schema.json"}})
    with pytest.raises(SoftPromptError, match="not there"):
        rule.holds("{}")
    own = {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}
    assert Constraint.parse({"json": own}).holds("3") and not Constraint.parse({"json": own}).holds('"3"')
