"""Rows are read from JSON Lines, a JSON list, or a JSON object that holds rows or columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softprompt.data.python_rows import columns_of, split_of
from softprompt.data.row import Row, row_of, short
from softprompt.data.text_files import MAX_ROW, read_text, row_too_long
from softprompt.data.values import MAX_DIGITS
from softprompt.errors import SoftPromptError

#: Keys under which an object holds its rows.
ROWS_UNDER = ("data", "rows", "examples", "instances", "items", "records", "samples", "questions")
_LINE = re.compile(r"\r\n|\n|\r")  # not splitlines(): U+2028 and the like are legal inside a JSON string


def read_jsonl(path: Path, split: str) -> list[Row]:
    """Read one JSON object from each line; blank lines are skipped."""
    return rows_of_json(read_text(path), path.name, split, whole=path.suffix.lower() == ".json")


def rows_of_json(text: str, name: str, split: str, *, whole: bool = False) -> list[Row]:
    """Read the rows of a text that is not blank. With `whole`, a single object may hold rows."""
    if text.lstrip()[0] == "[":  # a list under another name
        return _list(text, name)
    return _lines(text, name, split, whole)


def lines_of(text: str) -> list[str | None]:
    """Return the text's lines, None for a blank one."""
    lines = _LINE.split(text.removeprefix("\ufeff"))
    return [line if line.strip() else None for line in (lines if lines[-1] else lines[:-1])]


def row_lines(text: str, name: str, fix: str = "each line is one complete JSON object") -> list[Row | None]:
    """Return a row for each line, None for a blank one."""
    return [
        None if line is None else row_of(parse(line, where, fix), where)
        for line, where in ((line, f"{name}:{number}") for number, line in enumerate(lines_of(text), 1))
    ]


def parse(text: str, where: str, fix: str) -> Any:
    """Parse one JSON value. Raises SoftPromptError that begins with `where`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SoftPromptError(
            f"{where}: broken JSON: {error.msg} at column {error.colno}",
            why=f"the line reads {short(text)}",
            fix=fix,
        ) from None
    except (RecursionError, ValueError) as error:
        raise _too_much(error, where) from None


def _lines(text: str, name: str, split: str, whole: bool) -> list[Row]:
    try:
        rows = [row for row in row_lines(text, name) if row is not None]
    except SoftPromptError:
        if (rows := _object(text, name, split)) is not None:
            return rows
        raise
    if whole and len(rows) == 1:
        return _held(rows[0], name, split) or rows
    return rows


def _object(text: str, name: str, split: str) -> list[Row] | None:
    """Return the rows of a text that is one JSON object over several lines; None where it is not."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, Mapping):
        return None
    return _held(value, name, split) or [row_of(value, f"{name}:1")]


def _held(value: Mapping[str, Any], name: str, split: str) -> list[Row] | None:
    """Return the rows that an object holds, as columns or under a key; None where it is a row itself."""
    rows = split_of(value, split)
    if isinstance(rows, Mapping):
        return _held(rows, name, split)
    if rows is None and (rows := columns_of(value)) is None:
        under = [key for key in ROWS_UNDER if _is_rows(value.get(key))]
        rows = value[under[0]] if len(under) == 1 else None
    if rows is None or not _is_rows(rows):
        return None
    return [row_of(row, f"{name} row {number}") for number, row in enumerate(rows, 1)]


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _list(text: str, name: str) -> list[Row]:
    """Read the list item by item, so that each row knows its line."""
    decoder, rows, line, seen = json.JSONDecoder(), [], 1, 0
    position = _skip(text, text.index("[") + 1)
    try:
        while text[position : position + 1] != "]":
            line, seen = line + text.count("\n", seen, position), position
            value, end = decoder.raw_decode(text, position)
            if end - position > MAX_ROW:
                raise row_too_long(f"{name}:{line}")
            rows.append(row_of(value, f"{name}:{line}"))
            position = _skip(text, end)
            if text[position : position + 1] == ",":
                position = _skip(text, position + 1)
                if text[position : position + 1] == "]":
                    raise json.JSONDecodeError("there is a comma after the last row", text, position)
            elif text[position : position + 1] != "]":
                raise json.JSONDecodeError("expected ',' or ']' after a row", text, position)
        if (rest := _skip(text, position + 1)) != len(text):
            raise json.JSONDecodeError("text after the end of the list", text, rest)
    except json.JSONDecodeError as error:
        raise SoftPromptError(
            f"{name}:{error.lineno}: broken JSON: {error.msg} at column {error.colno}",
            why="the file begins with '[', so it is read as one JSON list of objects",
            fix="correct that place, or write JSON Lines",
        ) from None
    except (RecursionError, ValueError) as error:
        raise _too_much(error, f"{name}:{line}") from None
    return rows


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _too_much(error: Exception, where: str) -> SoftPromptError:
    if isinstance(error, RecursionError):
        return SoftPromptError(
            f"{where}: lists or objects are nested too deeply to be read",
            fix="flatten the row, or take it out",
        )
    return SoftPromptError(
        f"{where}: a number has too many digits",
        why=f"at most {MAX_DIGITS:,} are read",
        fix="give it as text, in quotes",
    )
