"""Rows of labels, of answers and of several prompts, made in code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def _rows(kind: str, n: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for i in range(n):
        if kind == "labels":
            rows.append({"input": f"row {i}", "target": ("good", "bad")[i % 2]})
        elif kind == "answers":
            rows.append({"input": f"say {i}", "target": f"it is {i}", "style": ("joke", "fact")[i % 2]})
        else:
            rows.append({"input": f"pick {i}", "target": "b", "options": ["a", "b", "c"]})
    return rows


@pytest.fixture
def rows_file(tmp_path) -> Callable[..., Path]:
    """`rows_file(kind, n=24)`: a file of rows; kind is labels, answers or choices."""

    def write(kind: str, n: int = 24) -> Path:
        path = tmp_path / f"{kind}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in _rows(kind, n)), encoding="utf-8")
        return path

    return write
