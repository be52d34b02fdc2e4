"""Thousands of tuned prompts, served from one copy of the base model."""

from .engine import Engine
from .registry import Entry, Loaded, Registry
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
