"""Rows that the model writes are kept as JSON Lines, which a person can read and change."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._system.files import write_text
from ..data.sources import read_rows
from ..errors import SoftPromptError

Written = dict[str, Any]  # a row, which has a `request` among its fields


def read(file: Path) -> dict[str, Written]:
    """Return the rows of a file by their request; none where there is no file, or an empty one.

    Raises SoftPromptError, which names the line, for a row without a request.
    """
    if not file.exists() or not file.read_bytes().strip():
        return {}
    rows: dict[str, Written] = {}
    for row in read_rows(str(file)):
        request = row.get("request")
        if not isinstance(request, str) or not request.strip():
            raise SoftPromptError(
                f"{row.where}: the row has no text in the field 'request'",
                why="the file holds requests that the model wrote or answered",
                fix="give the row a request, or remove the line",
            )
        rows[request] = dict(row)
    return rows


def write(file: Path, rows: Iterable[Written]) -> None:
    """Write rows; the file is whole at any time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
