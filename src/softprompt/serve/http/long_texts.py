"""Texts so long that to tokenize them takes time: they hold up nobody but each other.

Tokenizing releases Python's lock, and takes seconds for a megabyte. So one short text and one long text are
tokenized at a time. One that is far too long for the model is found out by its beginning.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from ..request import ContextExceeded
from .errors import ApiError

LONG = 16_384  # characters: some 10 ms
AT_ONCE = 8  # long texts in hand; each keeps a thread of the server's
FAR = 2  # contexts of tokens: however the rest is tokenized, what begins with so many does not fit into one


class LongTexts:
    """Whose turn it is with the tokenizer; `context` is the model's, in tokens (None: no bound)."""

    def __init__(self, tokenizer: Any, context: int | None) -> None:
        self.context = context
        self._fast = getattr(tokenizer, "backend_tokenizer", None)  # None: one that is written in Python
        self._short, self._long = threading.Lock(), threading.Lock()
        self._room = threading.BoundedSemaphore(AT_ONCE)

    @contextlib.contextmanager
    def turn(self, characters: int = 0) -> Iterator[None]:
        """The tokenizer is the caller's, for a text of that many characters.

        Raises ApiError 429 where enough long texts are in hand.
        """
        if characters <= LONG or self._fast is None:
            with self._short:
                yield
            return
        if not self._room.acquire(blocking=False):
            message = f"The server is reading {AT_ONCE} long inputs already."
            raise ApiError(429, message, code="too_many_long_inputs", retry_after=1)
        try:
            with self._long:
                yield
        finally:
            self._room.release()

    def check(self, text: str, what: str) -> None:
        """Raises ContextExceeded for a text whose beginning is already far beyond the context.

        `what` it was sent as. Others pass: whether they fit is seen when they are tokenized.
        """
        if self.context is None or self._fast is None:
            return
        characters = max(LONG, 4 * self.context)
        if characters >= len(text):
            return
        with self.turn(len(text)):
            while characters < len(text):
                (begun,) = self._fast.encode_batch([text[:characters]], add_special_tokens=False)
                if len(begun) > FAR * self.context:
                    raise ContextExceeded(
                        f"the model's context is {self.context} tokens, and the {what} alone takes more than "
                        f"{FAR * self.context}",
                        fix=f"shorten the {what}",
                    )
                characters *= 4
