"""The requests that a text is distilled on: read from rows, made distinct, and split."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..data.sources import Row, read_rows
from ..errors import SoftPromptError

FIELDS = ("request", "input", "prompt", "question", "query", "instruction", "text")
SHARES = (0.15, 0.15)  # of the requests, for the dev and the test rows
LEAST = 8  # requests: fewer say nothing of others


def read_requests(source: str | Iterable[Mapping[str, Any] | str], field: str | None) -> list[str]:
    """Read the requests; equal ones count once.

    `field` names the field of a row that holds its request; by default the first of `FIELDS` that the first
    row has. Raises SoftPromptError where a row does not have it, and for fewer than `LEAST` requests.
    """
    if not isinstance(source, str):
        source = [{"request": row} if isinstance(row, str) else row for row in source]
    texts = list(dict.fromkeys(_texts(read_rows(source), field)))
    if len(texts) < LEAST:
        raise SoftPromptError(
            f"{len(texts)} requests are too few to distil a text",
            why="some are trained on, and others must show what was lost",
            fix=f"give {LEAST} or more, better some hundreds; or give none, and the model writes them itself",
        )
    return texts


def split(texts: Sequence[str], groups: Mapping[str, str], seed: int) -> tuple[list[str], ...]:
    """Split requests by seed: to train on, to choose the best step by, and to measure on at the end.

    `groups` names the group of a request, where it has one: all of a group are on one side.
    """
    by_group: dict[str, list[str]] = {}
    for text in texts:
        by_group.setdefault(groups.get(text, text), []).append(text)
    names = sorted(by_group, key=lambda name: (len(by_group[name]), name))
    random.Random(seed).shuffle(names)
    held: list[list[str]] = [[], []]
    for part, share in zip(held, SHARES, strict=True):
        while names[1:] and len(part) < max(2, round(share * len(texts))):
            part += by_group[names.pop()]
    return [text for name in names for text in by_group[name]], *held


def _texts(rows: Sequence[Row], field: str | None) -> list[str]:
    name = field or next((name for name in FIELDS if rows and name in rows[0]), None)
    if name is None:
        known = ", ".join(map(str, rows[0])) if rows else "none"
        raise SoftPromptError(
            "the rows of requests have no field that holds a request",
            why=f"their fields are: {known}",
            fix=f"name it: --field NAME (field= in Python); known names are {', '.join(FIELDS)}",
        )
    texts = []
    for row in rows:
        value = row.get(name)
        if name not in row:
            raise SoftPromptError(
                f"{row.where}: no field '{name}'",
                why=f"the row has: {', '.join(map(str, row))}",
                fix="--field NAME (field= in Python) names the field that holds the request",
            )
        if not isinstance(value, str) or not value.strip():
            raise SoftPromptError(
                f"{row.where}: the field '{name}' holds no request: {value!r:.60}",
                fix="give every row a text there, or remove the row",
            )
        texts.append(value)
    return texts
