"""Thousands of tuned prompts served from one base model.

request.py    what is asked, and what comes back         answer.py     a request's answer as it comes
registry.py   prompts by name: found, verified, loaded   engine.py     requests become rows of one batch
row.py        one request on its way                     reuse.py      keys and values that requests share
sampling.py   logits to tokens                           text.py       tokens to text, and where it stops
classify.py   label probabilities                        scoring.py    prompts that score an input
control.py    control tokens in a client's text       context.py    what fits the model's context
failures.py   failures as lines of the log          api/          all of it over HTTP
"""

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
