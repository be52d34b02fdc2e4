"""Encoded rows of bare ids, and a folder for caches."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from softprompt.cache.folders import CacheFolder

LENGTHS = (5, 1, 9, 3, 9, 2)


@pytest.fixture
def encoded() -> Callable[..., list[Any]]:
    """`encoded(lengths, start=10)`: what a cache reads of encoded rows; row i's ids begin at start + i."""

    def make(lengths=LENGTHS, start: int = 10) -> list[Any]:
        rows = []
        for index, length in enumerate(lengths):
            ids = tuple((start + index + k) % 97 for k in range(length))
            about = {"target_ids": (1, 2), "places": (), "value": None, "prompt": index % 2}
            about |= {"answers": ((1, 2),), "answer_tokens": 2, "teacher": None, "side": None}
            rows.append(SimpleNamespace(input_ids=ids, rendered=SimpleNamespace(input=""), **about))
        return rows

    return make


@pytest.fixture
def examples(encoded):
    return encoded()


@pytest.fixture
def place(tmp_path) -> CacheFolder:
    """Room enough for any test."""
    return CacheFolder(tmp_path / "kv", limit=10**9)
