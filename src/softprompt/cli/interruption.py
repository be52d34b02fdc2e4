"""Ctrl-C (SIGINT) and SIGTERM: training stops after its step and saves; anything else stops at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """While entered, the two signals set `asked` if training is `under_way`, else raise KeyboardInterrupt.

    A second signal always raises: whoever is in a hurry loses no more than the steps since the last save.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self.under_way = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        try:
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        except ValueError:  # not in the main thread: whoever runs us there stops us otherwise
            pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.under_way:
            raise KeyboardInterrupt
        self.asked = True
