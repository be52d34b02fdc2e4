"""`hf:OWNER/NAME@REVISION` is read, and what the hub would refuse is refused here."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprompt.artifacts.hub.reference import Reference, is_reference, parse, split_prompt
from softprompt.errors import SoftPromptError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:me/mood", Reference("me/mood")),
        ("hf:me/mood@v1", Reference("me/mood", "v1")),
        ("me/mood@refs/pr/3", Reference("me/mood", "refs/pr/3")),
        (Path("hf:me/mood.v2@" + "a" * 40), Reference("me/mood.v2", "a" * 40)),
    ],
)
def test_ids_and_revisions_are_read(text, expected):
    assert parse(text) == expected
    assert parse(str(expected)) == expected


def test_only_the_prefix_makes_a_reference():
    assert is_reference("hf:me/mood") and is_reference(Path("hf:me/mood"))
    assert not is_reference("runs/hf:me") and not is_reference(Path("me/mood"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hf:", "96"),
        ("hf:mood", "owner"),
        ("hf:a/b/c", "form"),
        ("hf:me/mood--x", "--"),
        ("hf:../etc/passwd", "form"),
        ("hf:me/..", "."),
        ("hf:me/mood@", "nothing follows"),
        ("hf:me/mood@a b", "no branch, tag or commit"),
        ("hf:me/mood:joke", "colon"),
        ("hf:https://x.org/me/mood", "form"),
    ],
)
def test_wrong_ids_are_one_error_with_the_right_form(text, why):
    with pytest.raises(SoftPromptError) as error:
        parse(text)
    assert text.removeprefix("hf:") in error.value.what
    assert why in error.value.why and error.value.fix


def test_a_prompt_is_split_off():
    assert split_prompt("hf:me/voices:joke") == ("hf:me/voices", "joke")
    assert split_prompt("hf:me/voices@v1:a:b") == ("hf:me/voices@v1", "a:b")
    assert split_prompt("hf:me/voices") == ("hf:me/voices", None)
