"""The requests that a text is distilled on: read from rows, made distinct, and split."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.sources import Row, read_rows
from ..errors import SoftPromptError

FIELDS = ("request", "input", "prompt", "question", "query", "instruction", "text")
SHARES = (0.15, 0.15)  # of the requests, for the dev and the test rows
LEAST = 8  # requests: fewer say nothing of others


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests to train on, to choose the best step by, and to measure on at the end."""

    train: list[str]
    dev: list[str]
    test: list[str]

    @property
    def every(self) -> list[str]:
        return [*self.train, *self.dev, *self.test]


def read_requests(source: str | Iterable[Mapping[str, Any] | str], field: str | None, seed: int) -> Requests:
    """Read the requests and split them by seed; equal ones count once.

    `field` names the field of a row that holds its request; by default the first of `FIELDS` that the first
    row has. Raises SoftPromptError where no row has it, and for fewer than `LEAST` requests.
    """
    if not isinstance(source, str):
        source = [{"request": row} if isinstance(row, str) else row for row in source]
    texts = list(dict.fromkeys(_texts(read_rows(source), field)))
    if len(texts) < LEAST:
        raise SoftPromptError(
            f"{len(texts)} requests are too few to distil a text",
            why="some are trained on, and others must show what was lost",
            fix=f"give {LEAST} or more, better some hundreds; or give none, and the model asks itself",
        )
    random.Random(seed).shuffle(texts)
    dev, test = (max(2, round(share * len(texts))) for share in SHARES)
    return Requests(texts[dev + test :], texts[:dev], texts[dev : dev + test])


def _texts(rows: Sequence[Row], field: str | None) -> list[str]:
    name = field or next((name for name in FIELDS if rows and name in rows[0]), None)
    if name is None:
        known = ", ".join(map(str, rows[0])) if rows else "none"
        raise SoftPromptError(
            "the rows of requests have no field that holds a request",
            why=f"their fields are: {known}",
            fix=f"name it: field=NAME; known names are {', '.join(FIELDS)}",
        )
    texts = []
    for row in rows:
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            raise SoftPromptError(
                f"{row.where}: the field '{name}' holds no request: {value!r:.60}",
                fix="give every row a text there, or remove the row",
            )
        texts.append(value)
    return texts
