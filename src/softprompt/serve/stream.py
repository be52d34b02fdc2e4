"""An answer as it comes: filled by the engine's thread, read by another one or by an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import final

from .request import Finished, Request, Token


@final
class Answer:
    """Tokens of one request and, as the last thing, `Finished`. Read once, by one reader."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.echoed: tuple[Token, ...] = ()  # the input's own tokens, if requested; set before the first one
        self.cancelled = self.ended = False
        self.begun = time.monotonic()
        self._come: deque[Token | Finished] = deque()
        self._changed = threading.Condition()
        self._wake: Callable[[], object] | None = None

    def cancel(self) -> None:
        """The row leaves at the next step."""
        self.cancelled = True

    def put(self, item: Token | Finished) -> None:
        """By the engine alone."""
        with self._changed:
            self._come.append(item)
            self.ended = isinstance(item, Finished)
            self._changed.notify()
            wake = self._wake
        if wake is not None:
            wake()

    def __iter__(self) -> Iterator[Token | Finished]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._come)
                item = self._come.popleft()
            yield item
            if isinstance(item, Finished):
                return

    async def __aiter__(self) -> AsyncIterator[Token | Finished]:
        loop, there = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(there.set)
            except RuntimeError:  # the loop is closed: nobody reads any more
                self.cancel()

        with self._changed:
            self._wake = wake
        while True:
            there.clear()
            while self._come:
                item = self._come.popleft()
                yield item
                if isinstance(item, Finished):
                    return
            if not self._come:
                await there.wait()
