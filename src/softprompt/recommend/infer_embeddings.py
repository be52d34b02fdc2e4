"""Tells rows of an embedding task by their fields: a query with a document that fits it, or a scored pair.

Only names that such rows usually have tell it, since two texts in a row may as well be a question and its
answer. A caller shows what was inferred, and how to name the fields instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[Mapping[str, Any]]

QUERIES = ("query", "anchor", "question")
POSITIVE = "positive"
NEGATIVES = ("negatives", "negative", "hard_negatives", "hard_negative")
#: Texts that are compared, where a field of scores says how alike they are.
PAIRS = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("question1", "question2"),
    ("query", "document"),
    ("query", "passage"),
    ("query", "positive"),
)
SCORES = ("score", "similarity", "similarity_score", "relevance", "relevance_score")
#: A name under which scores are published too: it has them where its numbers are no whole numbers.
LABEL = "label"
#: Scales of scores, the smallest first.
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 5.0), (0.0, 10.0), (0.0, 100.0))


@dataclass(frozen=True)
class EmbeddingFields:
    """The fields of embedding rows are those of two texts, and of texts that do not fit or a score."""

    query: str
    document: str
    negatives: str | None = None
    score: str | None = None
    score_range: tuple[float, float] | None = None


def embedding_fields(rows: Rows) -> EmbeddingFields | None:
    """Return the fields of embedding rows; None where the names do not tell that they are such."""
    lower = {name.lower(): name for name in rows[0] if all(name in row for row in rows)}
    texts = {short: name for short, name in lower.items() if all(isinstance(row[name], str) for row in rows)}
    for first, second in PAIRS:
        if first in texts and second in texts and (score := _score(rows, lower)) is not None:
            return EmbeddingFields(texts[first], texts[second], None, score, _range(rows, score))
    query = next((texts[name] for name in QUERIES if name in texts), None)
    if query is None or POSITIVE not in texts:
        return None
    present = {name.lower(): name for row in rows for name in row}
    negatives = next((present[name] for name in NEGATIVES if name in present), None)
    return EmbeddingFields(query, texts[POSITIVE], negatives)


def _score(rows: Rows, fields: Mapping[str, str]) -> str | None:
    """Return the field of scores among `fields` (its lower name: its name)."""
    for short in (*SCORES, LABEL):
        numbers = None if short not in fields else [as_number(row[fields[short]]) for row in rows]
        if numbers is None or any(number is None for number in numbers):
            continue
        if short != LABEL or any(number != int(number) for number in numbers if number is not None):
            return fields[short]
    return None


def as_number(value: Any) -> float | None:
    """Return the number that a value is or spells; None where it is none, or not finite."""
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):  # an integer may have any number of digits
        return None
    return number if number is not None and math.isfinite(number) else None


def _range(rows: Rows, score: str) -> tuple[float, float]:
    """Return the smallest usual scale that has all scores, else the lowest and the highest of them."""
    scores = [float(row[score]) for row in rows]
    low, high = min(scores), max(scores)
    usual = next((scale for scale in RANGES if scale[0] <= low and high <= scale[1]), None)
    return usual or (low, high)
