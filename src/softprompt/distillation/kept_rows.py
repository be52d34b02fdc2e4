"""Rows that the model writes are kept as JSON Lines, which a person can read and change.

A field of each row names the text (or the teacher) that it belongs to. A file holds the rows of one text:
those of others, hand edits included, are set aside in a file beside it, until their text is used again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._system.files import write_text
from ..data.sources import read_rows
from ..errors import SoftPromptError

Written = dict[str, Any]  # a row, which has a `request` among its fields


@dataclass(frozen=True)
class KeptRows:
    """Holds the rows of one text in a file: those whose `field` is `value`, or that lack it."""

    file: Path
    field: str
    value: str

    @property
    def aside(self) -> Path:
        """Return the file of the rows of other texts."""
        return self.file.with_suffix(".other_texts.jsonl")

    def read(self) -> dict[str, Written]:
        """Return the rows by their request; none where there is no file, or an empty one.

        Raises SoftPromptError, which names the line, for a row without a request.
        """
        every = [*_read(self.aside), *_read(self.file)]  # what is in the file itself counts
        return {row["request"]: row for row in every if self._is_ours(row)}

    def write(self, rows: Iterable[Written]) -> None:
        """Write the rows; each file is whole at any time, and no row of another text is lost."""
        aside = _read(self.aside)
        if others := [row for row in _read(self.file) if not self._is_ours(row)]:
            by_name = {(row.get(self.field), row["request"]): row for row in [*aside, *others]}
            aside = list(by_name.values())
            _write(self.aside, aside)
        _write(self.file, rows)
        if any(self._is_ours(row) for row in aside):  # they are in the file now
            _write(self.aside, [row for row in aside if not self._is_ours(row)])

    def settle(self) -> None:
        """Set the rows of other texts aside, and bring those of this text back.

        Rows that a person has added belong to this text from now on: else they would be every text's.
        """
        if any(row.get(self.field) != self.value for row in _read(self.file)):
            self.write({**row, self.field: self.value} for row in self.read().values())

    def _is_ours(self, row: Written) -> bool:
        return row.get(self.field, self.value) == self.value


def _read(file: Path) -> list[Written]:
    if not file.exists() or not file.read_bytes().strip():
        return []
    rows: list[Written] = []
    for row in read_rows(str(file)):
        request = row.get("request")
        if not isinstance(request, str) or not request.strip():
            raise SoftPromptError(
                f"{row.where}: the row has no text in the field 'request'",
                why="the file holds requests that the model wrote or answered",
                fix="give the row a request, or remove the line",
            )
        rows.append(dict(row))
    return rows


def _write(file: Path, rows: Iterable[Written]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
