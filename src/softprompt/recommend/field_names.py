"""The names that fields of rows usually have, by what the fields are for."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Fields that are read together, the first that are all there.
TOGETHER = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("context", "question"),
    ("passage", "question"),
    ("instruction", "input"),
)
INPUTS = (
    *("input", "text", "sentence", "question", "instruction", "prompt", "query", "source", "review"),
    *("article", "document", "content", "body", "message", "utterance", "comment", "tweet", "title"),
    *("request", "facts"),
)
TARGETS = (
    *("target", "label_text", "label_name", "label", "labels", "output", "completion", "response"),
    *("answer", "answers", "summary", "category", "class", "intent", "sentiment", "topic", "emotion"),
    *("rating", "translation", "rewrite", "reply", "listing", "highlights", "y"),
)
CHOICES = ("choices", "options")
#: Fields that number or split rows rather than describe them.
ASIDE = ("id", "idx", "index", "uid", "uuid", "guid", "split", "url", "timestamp", "date")
#: Fields of few values that describe a row, and name no prompt.
ABOUT = (
    *("label", "labels", "label_text", "label_name", "category", "class", "intent", "sentiment", "topic"),
    *("emotion", "rating", "score", "difficulty", "level", "source", "year", "month", "priority", "status"),
)


def is_aside(field: str) -> bool:
    """Return whether a field of this name numbers or splits the rows: `id`, `ticket_id`, `Order no`."""
    return re.split(r"[\W_]+", field.lower().strip())[-1] in (*ASIDE, "no", "nr", "number")


def by_name(fields: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the field of the first of the names; else the only one that ends in one: "Customer message"."""
    lower = {field.lower(): field for field in fields}
    match = next((lower[name] for name in names if name in lower), None)
    if match is None:
        words = {field: re.split(r"[\W_]+", field.lower())[-1] for field in fields}
        ending = [field for field, word in words.items() if word in names]
        match = ending[0] if len(ending) == 1 else None
    return match
