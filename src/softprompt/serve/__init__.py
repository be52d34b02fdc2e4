"""Thousands of tuned prompts served from one base model.

registry.py   prompts by name: found, verified, loaded, reloaded          request.py   what is asked, and what comes back
engine.py     requests become rows of one running batch                   answer.py    a request's answer as it comes
reuse.py      keys and values that requests share                         row.py       one request on its way
classify.py   label probabilities
sampling.py   logits to tokens         text.py   tokens to text, and where it stops
"""

from .answer import Answer
from .engine import Engine
from .registry import Entry, Loaded, Registry
from .request import BrokenPrompt, Busy, Finished, InvalidRequest, Request, Sampling, Token, UnknownPrompt

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
    "Token",
    "UnknownPrompt",
]
