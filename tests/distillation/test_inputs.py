"""Texts and requests that people give: in many forms, with repeats, and some that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import softprompt
from softprompt.config.load import recipe_from_dict
from softprompt.config.sections.task import text_hash
from softprompt.data.teacher_texts import teacher_text
from softprompt.distillation.requests import read_requests, split, without_measured
from softprompt.distillation.texts import texts_of
from softprompt.errors import SoftPromptError

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss", "tree", "fog"]


def test_white_space_makes_no_other_request():
    """Else a request could be trained on and measured on."""
    spaced = [text for word in WORDS for text in (f"the {word}", f"the  {word}", f"the {word}\n")]
    assert [row["request"] for row in read_requests(spaced, None)] == [f"the {word}" for word in WORDS]
    rows, measured = ([{"request": text} for text in texts] for texts in (spaced[::3], spaced[2:6:3]))
    assert without_measured(rows, measured) == rows[2:]


def test_requests_that_the_model_wrote_keep_their_wording_as_a_file():
    """`--requests self_study.jsonl` splits them as self-study itself does."""
    rows = [{"request": f"{word} {i}", "wording": f"ask {i}"} for word in WORDS for i in range(4)]
    assert read_requests(rows, None) == rows
    sides = [{row["wording"] for row in part} for part in split(read_requests(rows, None), 0)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


@pytest.mark.parametrize("seed", range(6))
def test_each_side_of_a_split_has_rows_where_wordings_are_few(seed):
    rows = [{"request": f"{i}", "wording": w} for i, w in enumerate("aabb" + 10 * "c")]
    assert list(map(len, split(rows, seed))) == [10, 2, 2]
    rows = [{"request": f"{i}", "wording": w} for i, w in enumerate("abde" + 10 * "c")]
    assert list(map(len, split(rows, seed))) == [10, 2, 2]
    assert list(map(len, split(rows, seed, measured=False))) == [12, 2]


def test_rows_that_can_be_split_are_split_with_every_seed():
    """Groups are taken in a random order, and some orders leave a side without enough rows."""
    rows = [{"request": f"{i}", "wording": w} for i, w in enumerate("a" + "b" + 5 * "c" + 5 * "d")]
    for seed in range(40):
        sides = split(rows, seed)
        assert min(map(len, sides[1:])) >= 2 and sum(map(len, sides)) == len(rows)


@pytest.mark.parametrize("wordings", ["a" * 12, "ab" + 10 * "c", "ab" * 6])
def test_requests_of_too_few_wordings(wordings):
    rows = [{"request": f"{i}", "wording": w} for i, w in enumerate(wordings)]
    with pytest.raises(SoftPromptError, match=f"12 requests of {len(set(wordings))} wordings"):
        split(rows, 0)


def test_requests_are_rows_in_any_form(tmp_path):
    """A frame was read by the names of its columns: with eight of them, a text was distilled on these."""
    rows = [{"request": word} for word in WORDS]
    file = tmp_path / "requests.jsonl"
    file.write_text("\ufeff" + "".join(json.dumps(row) + "\n" for row in rows))
    frame = pd.DataFrame({**{f"column {i}": WORDS for i in range(9)}, "request": WORDS})
    sources = [file, str(file), frame, {"request": WORDS}, (word for word in WORDS), pd.Series(WORDS)]
    for source in sources:
        assert read_requests(source, None) == rows


@pytest.mark.parametrize(
    ("text", "requests", "options", "words"),
    [
        (None, WORDS, {}, "the text is no text, but of the type NoneType"),
        (["a", "b"], WORDS, {}, "the text is no text, but of the type list"),
        (__file__, WORDS, {}, "the text is the name of a file"),
        ("   ", WORDS, {}, "the teacher's text is empty"),
        ({}, WORDS, {}, "no text was given"),
        ({"a": "be loud"}, WORDS, {}, "there is only one text: a"),
        ({1: "be loud", 2: "be short"}, WORDS, {}, "the name of a text is no text: 1"),
        ({"a": 3, "b": "be short"}, WORDS, {}, "the text 'a' is no text, but of the type int"),
        ("be loud", [], {}, "0 requests are too few to distil"),
        ("be loud", WORDS, {"measure": WORDS[:1]}, "1 requests are too few to measure on"),
        ("be loud", None, {"count": 3}, "3 requests are too few to distil a text"),
        ("be loud", None, {"count": 0}, "0 requests are too few to distil a text"),
    ],
)
def test_texts_and_requests_that_cannot_be_used(model_folder, tmp_path, text, requests, options, words):
    with pytest.raises(SoftPromptError, match=words):
        softprompt.distill(str(model_folder), text, requests, output=tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"request": word, "name": "a"} for word in WORDS], "0 requests about 'b' are too few"),
        ([{"request": word, "name": ["a"]} for word in WORDS], r"row 1: no text is called \['a'\]"),
    ],
)
def test_requests_of_several_texts_that_cannot_be_used(model_folder, tmp_path, rows, words):
    texts = {"a": "be loud", "b": "be short"}
    with pytest.raises(SoftPromptError, match=words):
        softprompt.distill(str(model_folder), texts, rows, output=tmp_path / "out")


def test_a_mark_of_utf_8_is_no_part_of_a_text(tmp_path):
    """Editors of Windows write one; the model would read it in every request."""
    file = tmp_path / "system.txt"
    file.write_text("be loud", encoding="utf-8-sig")
    tree = {"data": "x", "task": {"objective": "distil"}, "teacher": {"file": str(file)}}
    recipe = recipe_from_dict(tree)
    assert teacher_text(recipe) == "be loud"
    assert recipe.recorded().teacher.sha256 == text_hash("be loud")


def test_an_empty_file_among_several_is_named(model_folder, tmp_path):
    (tmp_path / "a.md").write_text("be loud")
    (tmp_path / "b.md").write_text(" ")
    texts = {name: Path(text["file"]) for name, text in texts_of([tmp_path]).items()}
    with pytest.raises(SoftPromptError, match=r"b\.md is empty"):
        softprompt.distill(str(model_folder), texts, WORDS, output=tmp_path / "out")
