"""Rows that the model writes are kept as JSON Lines, which a person can read and change."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._system.files import write_text

Written = dict[str, Any]  # a row, which has a `request` among its fields


def read(file: Path) -> dict[str, Written]:
    """Return the rows of a file by their request; none where there is no file."""
    if not file.exists():
        return {}
    rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    return {row["request"]: row for row in rows}


def write(file: Path, rows: Iterable[Written]) -> None:
    """Write rows; the file is whole at any time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
