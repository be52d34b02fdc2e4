"""Spellings of labels, tags, choices and names of prompts that look the same are treated as the same.

They may differ by white space, by Unicode form (NFC, NFD), or by characters of no width. Nobody sees the
difference, and a model cannot learn it. Case counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from softprompt.errors import SoftPromptError

# Soft hyphen, zero-width space, word joiner, byte order mark. The joiners of emoji and of Persian count.
_NO_WIDTH = re.compile("[\u00ad\u200b\u2060\ufeff]")


def same_form(text: str) -> str:
    """Return the form that all spellings share: composed Unicode, single spaces, no zero-width characters."""
    if text.isascii() and text.isalnum():
        return text
    return " ".join(_NO_WIDTH.sub("", unicodedata.normalize("NFC", text)).split())


def spellings(texts: Iterable[str]) -> dict[str, list[str]]:
    """Group texts by their common form, each text once, in the order of their appearance."""
    groups: dict[str, dict[str, None]] = {}
    for text in dict.fromkeys(texts):
        groups.setdefault(same_form(text), {})[text] = None
    return {form: list(group) for form, group in groups.items()}


def distinct(texts: Iterable[str]) -> list[str]:
    """Return each name once, in the order of their appearance; of several spellings, the plain one.

    The plain one has no outer spaces, single spaces within, and composed Unicode.
    """
    return [group[0] if len(group) == 1 else form for form, group in spellings(texts).items()]


def meant(text: str, names: Sequence[str]) -> str | None:
    """Return the name that a text spells; None where it spells none of them, or several."""
    if text in names:
        return text
    alike = [name for name in names if same_form(name) == same_form(text)]
    return alike[0] if len(alike) == 1 else None


def refuse_twins(names: Sequence[str], key: str) -> None:
    """Raise SoftPromptError where two names are spellings of one."""
    if twins := [group for group in spellings(names).values() if len(group) > 1]:
        raise SoftPromptError(
            f"{key} holds {' and '.join(map(ascii, twins[0][:3]))}, which look the same",
            why="they differ by white space, Unicode form or characters of no width alone",
            fix="keep one of them; rows with the other spelling are read as it",
        )
