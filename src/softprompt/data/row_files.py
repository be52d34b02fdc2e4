"""Rows that are in memory are written to a file, for processes that read them anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from softprompt._system.files import write_text
from softprompt.data.row import Row
from softprompt.data.sources import fingerprint, read_rows
from softprompt.data.values import Unusable


def write_rows(
    folder: Path, rows: Iterable[Mapping[str, Any]], split: str, *, first: int | None = None
) -> Path:
    """Write rows as JSON Lines and return the file: the same rows have the same file.

    `rows` and `first` are those of `read_rows`. A field without a text (bytes, a picture) is left out.
    """
    every = read_rows(rows, split=split, first=first)
    file = folder / f"{split}-{fingerprint(every)[:12]}.jsonl"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, "".join(json.dumps(_usable(row), ensure_ascii=False) + "\n" for row in every))
    return file


def _usable(value: Any) -> Any:
    if isinstance(value, Row | dict):
        return {key: _usable(item) for key, item in value.items() if not isinstance(item, Unusable)}
    return [_usable(item) for item in value] if isinstance(value, list) else value
