"""Thousands of tuned prompts are served from one copy of the base model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import Engine
    from .names import Entry
    from .registry import Loaded, Registry
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

#: Every other name is in `request`.
_HOMES = {
    "Answer": "stream",
    "Engine": "engine",
    "Entry": "names",
    "Loaded": "registry",
    "Registry": "registry",
}


def __getattr__(name: str) -> Any:
    """Import a part at its first use, so that the gateway loads no torch."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f".{_HOMES.get(name, 'request')}", __name__), name)
