"""Texts and requests that people give: in many forms, with repeats, and some that cannot be used."""

from __future__ import annotations

import pytest

from softprompt.distillation.requests import read_requests, split, without_measured
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


@pytest.mark.parametrize("wordings", ["a" * 12, "ab" + 10 * "c", "ab" * 6])
def test_requests_of_too_few_wordings(wordings):
    rows = [{"request": f"{i}", "wording": w} for i, w in enumerate(wordings)]
    with pytest.raises(SoftPromptError, match=f"12 requests of {len(set(wordings))} wordings"):
        split(rows, 0)
