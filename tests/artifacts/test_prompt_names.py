"""No two names have one file, and none leads elsewhere."""

from __future__ import annotations

import itertools
import re
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from softprompt.artifacts.prompt_names import LONGEST, nameable, one_form, path_of, slot_files

PARTS = (
    "a",
    "A",
    "a.json",
    "a.",
    "a b",
    "a%20b",
    "é",
    "e\u0301",
    "x" * 300,
    "文" * 80,
    "con",
    "a-b",
    "%~",
    "~",
)
PROMPTS = (
    *PARTS,
    "..",
    ".",
    "../a",
    "a/b",
    "/a",
    "a/",
    "a//b",
    ".a",
    "a:b",
    ":",
    "a\\b",
    "a/../b",
    "\n",
    "\0",
)
NAMES = [
    *PARTS,
    *(f"{one}/{other}" for one, other in itertools.product(PARTS, repeat=2)),
    *(f"{part}:{prompt}" for part in PARTS for prompt in PROMPTS),
    *(f"t/{part}:{prompt}" for part in PARTS for prompt in PROMPTS),
]


def test_the_path_of_a_name_is_its_own():
    paths = [path_of(name) for name in NAMES]
    assert len(set(NAMES)) == len(NAMES) == len(set(paths))
    # nor is one's file a folder of another's
    files = {f"{path}.json" for path in paths}
    folders = {parent.as_posix() for path in paths for parent in PurePosixPath(path).parents}
    assert not files & folders
    for path in paths:
        for part in PurePosixPath(f"{path}.json").parts:
            assert part.isascii() and not part.startswith(".") and not set(part) & set('\\:*?"<>|/\0\n ')
            assert len(part) <= 255


def test_plain_names_are_their_paths():
    """As folders that were compiled before have them."""
    assert path_of("team/support") == "team/support" and path_of("voices:joke") == "voices%3Ajoke"


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_prompts_of_any_names_never_share_a_file(one, other):
    assert (path_of(f"a:{one}") == path_of(f"a:{other}")) == (one == other)
    files = slot_files({one: 0, other: 0}, ".bin")
    assert len({file.casefold() for file in files.values()}) == len(files)
    for file in files.values():
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.bin", file) and ".." not in file
        assert len(file) <= LONGEST + 4


def test_slots_keep_plain_names():
    assert slot_files(["joke", "fact.v2"], ".bin") == {"joke": "joke.bin", "fact.v2": "fact.v2.bin"}
    files = slot_files(["a/b", "a-b", "Joke", "joke", "..", "x" * 300, "é", "e\u0301"], ".bin")
    assert files["a-b"] == "a-b.bin" and files["a/b"].startswith("a-b-") and files[".."].startswith("prompt-")
    made = slot_files([*files, files["a/b"].removesuffix(".bin")], ".bin")  # one that looks like a made name
    assert len({file.casefold() for file in made.values()}) == 9


def test_what_a_folder_may_be_called():
    assert nameable("run 1") and nameable("é") and one_form("e\u0301") == "é"
    assert not any(map(nameable, ("", ".a", "a:b", "a\\b", "a\tb", "a\udcff")))
