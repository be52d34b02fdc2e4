"""Fields of a row that templates do not render: names of prompts, and lists of texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from softprompt.data.row import Row, short
from softprompt.data.template_errors import missing_field
from softprompt.data.values import Unusable, plain
from softprompt.errors import SoftPromptError


def name_in(row: Mapping[str, Any], field: str) -> str | None:
    """Return the name (of a prompt) that a row gives in a field; None where it gives none.

    Raises SoftPromptError for a value that is no name: a list, an object.
    """
    value = plain(row.get(field))
    if value is None or (isinstance(value, str) and not value):
        return None
    if isinstance(value, Unusable):
        raise value.error()
    if isinstance(value, (list, dict)):
        raise SoftPromptError(
            f"{getattr(row, 'where', 'a row')}: field '{field}' names no prompt: it holds {short(value)}",
            fix="give one name a row",
        )
    return str(value)


def text_list(row: Row, field: str, name: str) -> tuple[str, ...]:
    """Return the texts of a field that holds a list, or a JSON list as text (as a CSV cell must)."""
    if field not in row:
        raise missing_field(field, name, row)
    value = row[field]
    if isinstance(value, str):
        try:
            value = plain(json.loads(value))
        except (ValueError, RecursionError):
            value = None
    items = value if isinstance(value, list) else [value]
    unusable = next((item for item in items if isinstance(item, Unusable)), None)
    if unusable is not None:
        raise unusable.error()
    if not isinstance(value, list) or any(not isinstance(item, (str, int, float)) for item in value):
        raise SoftPromptError(
            f"{row.where}: field '{field}' ({name}) is not a list of texts",
            why=f"it holds {row[field]!r}"[:200],
            fix="fill in what is missing in it" if None in items[1:] else 'write a list, as in ["yes", "no"]',
        )
    return tuple(str(item) for item in value)


def words_of(row: Row, field: str, name: str) -> tuple[str, ...]:
    """Return texts without white space, of a field that lists them."""
    words = text_list(row, field, name)
    if odd := next((word for word in words if len(word.split()) != 1), None):
        raise SoftPromptError(
            f"{row.where}: {odd!r} in field '{field}' is not one word",
            why="words and tags hold no white space",
            fix="split it (and give each part a tag), or write '_' for the space",
        )
    if "" in words:
        raise SoftPromptError(
            f"{row.where}: an empty text in field '{field}'", fix="take it out, and its tag"
        )
    return words
