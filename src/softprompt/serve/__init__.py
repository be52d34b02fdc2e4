"""Thousands of tuned prompts, served from one copy of the base model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .names import Entry
from .request import (
    BrokenPrompt,
    Busy,
    Finished,
    InvalidRequest,
    Request,
    Sampling,
    Stopped,
    Token,
    UnknownPrompt,
)
from .stream import Answer

if TYPE_CHECKING:
    from .engine import Engine
    from .registry import Loaded, Registry

__all__ = [
    "Answer",
    "BrokenPrompt",
    "Busy",
    "Engine",
    "Entry",
    "Finished",
    "InvalidRequest",
    "Loaded",
    "Registry",
    "Request",
    "Sampling",
    "Stopped",
    "Token",
    "UnknownPrompt",
]

_HOMES = {"Engine": "engine", "Loaded": "registry", "Registry": "registry"}


def __getattr__(name: str) -> Any:
    """Import what needs a model when it is first used: the gateway needs none."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
