"""An answer is filled by the engine's thread, and read by another thread or by an event loop."""

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
    """Yields the tokens of one request and, at the end, `Finished`. It is read once, by one reader."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.echoed: tuple[Token, ...] = ()  # the input's own tokens, if requested; set before the first one
        self.cancelled = self.ended = False
        self.begun = time.monotonic()
        self._items: deque[Token | Finished] = deque()
        self._changed = threading.Condition()
        self._wake: Callable[[], object] | None = None

    def cancel(self) -> None:
        """Make the sequence leave the batch before the next step."""
        self.cancelled = True

    def put(self, item: Token | Finished) -> None:
        """Add an item; only the engine calls this."""
        with self._changed:
            self._items.append(item)
            self.ended = isinstance(item, Finished)
            self._changed.notify()
            wake = self._wake
        if wake is not None:
            wake()

    def __iter__(self) -> Iterator[Token | Finished]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items)
                item = self._items.popleft()
            yield item
            if isinstance(item, Finished):
                return

    async def __aiter__(self) -> AsyncIterator[Token | Finished]:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(arrived.set)
            except RuntimeError:  # the loop is closed, so nobody reads any more
                self.cancel()

        with self._changed:
            self._wake = wake
        while True:
            arrived.clear()
            while self._items:
                item = self._items.popleft()
                yield item
                if isinstance(item, Finished):
                    return
            if not self._items:
                await arrived.wait()
