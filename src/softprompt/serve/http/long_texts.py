"""Texts that take long to tokenize are kept from delaying short ones.

Tokenizing releases Python's lock, and takes seconds for a megabyte. So one short text and one long text are
tokenized at a time. A text that is far too long for the model is detected by its beginning.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from ..request import ContextExceeded
from .errors import ApiError

LONG = 16_384  # characters: some 10 ms
AT_ONCE = 8  # long texts that are read or wait; each keeps a thread of the server
FAR = 2  # contexts of tokens: a text that begins with so many does not fit, however the rest is tokenized


class LongTexts:
    """Gives turns with the tokenizer; `context` is the model's, in tokens (None: no limit)."""

    def __init__(self, tokenizer: Any, context: int | None) -> None:
        self.context = context
        self._fast = getattr(tokenizer, "backend_tokenizer", None)  # None: a tokenizer in Python
        self._short, self._long = threading.Lock(), threading.Lock()
        self._room = threading.BoundedSemaphore(AT_ONCE)

    @contextlib.contextmanager
    def turn(self, characters: int = 0) -> Iterator[None]:
        """Hold the tokenizer for a text of that many characters.

        Raises ApiError 429 where enough long texts are read or wait.
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

    def check(self, text: str, sent_as: str) -> None:
        """Raise ContextExceeded for a text whose beginning is already far beyond the context.

        `sent_as` is its kind in messages. Other texts pass: they are checked when they are tokenized.
        """
        if self.context is None or self._fast is None:
            return
        characters = max(LONG, 4 * self.context)
        if characters >= len(text):
            return
        with self.turn(len(text)):
            while characters < len(text):
                (beginning,) = self._fast.encode_batch([text[:characters]], add_special_tokens=False)
                if len(beginning) > FAR * self.context:
                    raise ContextExceeded(
                        f"the model's context is {self.context} tokens, and the {sent_as} alone takes "
                        f"more than {FAR * self.context}",
                        fix=f"shorten the {sent_as}",
                    )
                characters *= 4
