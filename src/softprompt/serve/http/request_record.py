"""A record of each request is filled while it is answered, for the log and for traces. It holds no text.

It travels in a context variable, which threads and tasks of the request share.
"""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass

HEADER = b"x-request-id"
_USABLE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass
class RequestRecord:
    """A record holds the id of a request, the prompt that answered, and tokens."""

    id: str
    prompt: str | None = None  # None: no prompt was found, or the route needs none
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_vectors: int = 0


_current: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


def begin(given_id: str) -> RequestRecord:
    """Start the record of a request. The client's id is kept where a log can hold it."""
    record = RequestRecord(given_id if _USABLE.fullmatch(given_id) else uuid.uuid4().hex)
    _current.set(record)
    return record


def answered_by(prompt: str) -> None:
    """Note the prompt, or the base, that answers the current request."""
    if (record := _current.get()) is not None:
        record.prompt = prompt


def count(read: int, written: int, vectors: int) -> None:
    """Add tokens of inputs, tokens of answers, and vectors, to the current request."""
    if (record := _current.get()) is not None:
        record.prompt_tokens += read
        record.completion_tokens += written
        record.prompt_vectors += vectors
