"""Targets are checked for text that does not survive encoding and decoding.

A tokenizer may lack characters, fold white space or case, or read a part of the text as a token that ends the
answer. End tokens at the end of a target are removed, since one is added to every target. This file knows
texts and a tokenizer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any


def end_texts(tokenizer: Any, ends: Iterable[int | None]) -> tuple[str, ...]:
    """Return the texts of the tokens that end an answer."""
    known = [end for end in ends if end is not None and 0 <= end < len(tokenizer)]
    names = {tokenizer.convert_ids_to_tokens(end) for end in known}
    return tuple(sorted(name for name in names if isinstance(name, str) and name.strip()))


def without_end(text: str, ends: Collection[str]) -> str:
    """Return the text without end tokens at its end, and without white space ahead of those."""
    while last := next((end for end in ends if text.rstrip().endswith(end)), None):
        text = text.rstrip()[: -len(last)].rstrip()
    return text


def lost_characters(text: str, read: str) -> str:
    """Return the target's characters that the decoded text lacks, each once."""
    return "".join(dict.fromkeys(character for character in text if character not in read))
