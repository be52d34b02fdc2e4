"""The requests that a text is distilled on: read from rows, made distinct, and split."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._system.notes import note
from ..data.row import Row
from ..data.sources import read_rows
from ..data.spelling import same_form
from ..errors import SoftPromptError

FIELDS = ("request", "input", "prompt", "question", "query", "instruction", "text")
GOLD = ("reference", "answer", "target", "answers")  # fields that may hold the right answer
KEPT = ("part", "chunk", "wording")  # fields of a row that are kept with its request
SHARES = (0.15, 0.15)  # of the requests, for the dev and the test rows
LEAST = 8  # requests: fewer say nothing of others
LEAST_MEASURED = 2
ATTEMPTS = 20  # to split groups so that each side has enough

Requests = str | Path | Iterable[Mapping[str, Any] | str]  # texts or rows, or the file of rows
Request = dict[str, Any]  # `request`, and what else is known of it: `reference`, `part`, `chunk`, `wording`


def check_arguments(requests: Any, measured: Any = None, *, field: str | None, count: int | None) -> None:
    """Raise SoftPromptError for a `count` beside requests, or too small, and for a `field` without rows."""
    if count is not None and requests is not None:
        raise SoftPromptError(
            f"{count} requests are to be written (--count), and requests were given",
            why="the model writes requests only where none are given",
            fix="leave out one of --count and --requests (count and requests in Python)",
        )
    if count is not None and count < LEAST:
        raise SoftPromptError(
            f"{count} requests are too few to distil a text (--count)",
            why="some are trained on, and others must show what was lost",
            fix=f"{LEAST} or more, or leave it out (count in Python)",
        )
    if field is not None and requests is None and measured is None:
        raise SoftPromptError(
            f"--field {field} has no effect",
            why="it names the field of the rows of requests, and none were given",
            fix="add --requests FILE or --measure FILE, or leave --field out (field= in Python)",
        )


def rows_of(source: Requests) -> list[Row]:
    """Read rows; a text in the place of a row is a request. Raises SoftPromptError as `read_rows` does."""
    given: Any = source
    is_table = isinstance(given, Mapping) or hasattr(given, "columns") or hasattr(given, "column_names")
    if isinstance(given, (str, Path)) or is_table or not isinstance(given, Iterable):
        return read_rows(given)
    return read_rows({"request": row} if isinstance(row, str) else row for row in given)


def read_requests(
    source: Requests, field: str | None, least: int = LEAST, *, about: str | None = None
) -> list[Request]:
    """Read the requests; equal ones, and those that differ by white space alone, count once.

    `field` names the field of a row that holds its request; by default the first of `FIELDS` that the first
    row has. A right answer that a row holds (`GOLD`) is its `reference`: nothing is trained on it. Raises
    SoftPromptError where a row has no request, and for fewer than `least` requests; `about` names their text.
    """
    rows = [] if isinstance(source, list) and not source else _rows(rows_of(source), field)
    if len(rows) < least:
        subject = "requests" if about is None else f"requests about '{about}'"
        purpose, otherwise = "to distil a text", "the model writes them itself"
        if least == LEAST_MEASURED:
            purpose, otherwise = "to measure on", "some of the others are kept apart"
        raise SoftPromptError(
            f"{len(rows)} {subject} are too few {purpose}",
            why="some are trained on, and others must show what was lost",
            fix=f"give {least} or more, better some hundreds; or give none, and {otherwise}",
        )
    return rows


def distinct(rows: Iterable[Request]) -> list[Request]:
    """Return the first row of each request; white space makes no other request."""
    first: dict[str, Request] = {}
    for row in rows:
        first.setdefault(same_form(row["request"]), row)
    return list(first.values())


def without_measured(rows: Sequence[Request], measured: Sequence[Request]) -> list[Request]:
    """Return the requests that are not measured on; a note says how many were both.

    Raises SoftPromptError where too few are left.
    """
    kept_apart = {same_form(row["request"]) for row in measured}
    left = [row for row in rows if same_form(row["request"]) not in kept_apart]
    if len(left) < min(LEAST, len(rows)):
        raise SoftPromptError(
            f"{len(left)} requests are left to train on: too few",
            why=f"the other {len(rows) - len(left)} are measured on (--measure)",
            fix=f"give {LEAST} or more to --requests that --measure does not hold",
        )
    if len(left) < len(rows):
        note(
            f"{len(rows) - len(left)} requests are measured on, and not trained on: --measure holds them too"
        )
    return left


def split(rows: Sequence[Request], seed: int, *, measured: bool = True) -> tuple[list[Request], ...]:
    """Split requests by seed: to train on, to choose the best step by, and (`measured`) to measure on.

    All requests of one wording about one chunk are on one side. A group of most of the rows is trained on.
    Raises SoftPromptError where a side would have too few.
    """
    by_group: dict[str, list[Request]] = {}
    for row in rows:
        by_group.setdefault(_group(row), []).append(row)
    for attempt in range(ATTEMPTS):  # large groups may leave too little in one order, and not in another
        draw = random.Random(f"{seed} {attempt}" if attempt else seed)
        held, left = _held_apart(by_group, draw, 2 if measured else 1)
        if min(map(len, held)) >= LEAST_MEASURED:
            return left, *held
    raise SoftPromptError(
        f"{len(rows)} requests of {len(by_group)} wordings cannot be split",
        why="those of one wording are all trained on or all kept apart, and "
        f"{LEAST_MEASURED} or more must be kept apart for each purpose",
        fix="give more requests, of other wordings",
    )


def _held_apart(
    by_group: Mapping[str, Sequence[Request]], draw: random.Random, sides: int
) -> tuple[list[list[Request]], list[Request]]:
    """Fill the sides that are kept apart with groups in a random order; return them, and what is left."""
    count = sum(map(len, by_group.values()))
    names = sorted(by_group, key=lambda name: (len(by_group[name]), name))
    draw.shuffle(names)
    names.sort(key=lambda name: 2 * len(by_group[name]) <= count)
    held: list[list[Request]] = [[] for _ in range(sides)]
    for later, part, share in zip(range(sides)[::-1], held, SHARES, strict=False):
        wanted = max(LEAST_MEASURED, round(share * count))
        while len(names) > 1 + later and len(part) < wanted:
            part += by_group[names.pop()]
    return held, [row for name in names for row in by_group[name]]


def _group(row: Request) -> str:
    """Name the rows that must be on one side: those of one wording and chunk, else the request itself."""
    if row.get("wording"):
        return f"{row.get('chunk', '')} {row['wording']}"
    return row["request"]


def _rows(rows: Sequence[Row], field: str | None) -> list[Request]:
    name = field or next((name for name in FIELDS if rows and name in rows[0]), None)
    if name is None:
        known = ", ".join(map(str, rows[0])) if rows else "none"
        raise SoftPromptError(
            "the rows of requests have no field that holds a request",
            why=f"their fields are: {known}",
            fix=f"name it: --field NAME (field= in Python); known names are {', '.join(FIELDS)}",
        )
    requests: list[Request] = []
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
        requests.append({"request": value, **_facts(row, name)})
    return distinct(requests)


def _facts(row: Row, name: str) -> dict[str, Any]:
    """Return what is kept of a row beside its request: its right answer, and where it belongs."""
    facts = {key: row[key] for key in KEPT if row.get(key) is not None and key != name}
    if "teacher" not in row:  # else the answer is one of our own files', and a teacher wrote it
        gold = next((row[key] for key in GOLD if key != name and _is_gold(row.get(key))), None)
        facts |= {} if gold is None else {"reference": gold}
    return facts


def _is_gold(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return bool(texts) and all(isinstance(text, str) and text.strip() for text in texts)
