"""Lone surrogates are found: halves of a character that no file and no tokenizer accepts.

They come from a text that was cut within an emoji ("\\ud83d" in JSON), or from bytes of another encoding on a
command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import SoftPromptError

FIX = "take the character out, or write U+FFFD (\\ufffd) in its place"


def is_whole(text: str) -> bool:
    """Return whether the text can be written as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def half_in(text: str) -> str:
    """Describe which half of a character a text holds, and where."""
    at = next(i for i, character in enumerate(text) if not is_whole(character))
    return f"half a character ({text[at]!a}, at place {at + 1} of {text[:60]!a})"


def check_whole(text: str, where: str, fix: str = FIX) -> str:
    """Return the text. Raise SoftPromptError, which begins with `where`, if it holds a lone surrogate."""
    if is_whole(text):
        return text
    raise SoftPromptError(
        f"{where} holds {half_in(text)}",
        why="a lone surrogate is no character: no tokenizer takes it, and no file",
        fix=fix,
    )


def texts_in(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text within nested mappings and lists, with the path to it (`task.labels.0`)."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield name, str(key)
            yield from texts_in(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from texts_in(inner, f"{name}.{number}" if name else str(number))
