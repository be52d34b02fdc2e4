"""Ctrl-C (SIGINT) and SIGTERM stop training after its step, which is saved; other work stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from .output import Reply

if TYPE_CHECKING:
    from ..training.tune import Hooks


class Interruption:
    """A signal sets `requested` while training is `under_way`, and raises KeyboardInterrupt otherwise.

    A second signal always raises; no more than the steps since the last save are lost then. One of several
    processes that `waits` leaves it to the first one to end before training.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, *, waits: bool = False) -> None:
        self.requested, self._waits = False, waits
        self.under_way = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        try:
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        except ValueError:  # not in the main thread: the caller there has its own way to stop us
            pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hooks(self) -> Hooks:
        """Return hooks that stop training after its step, once a signal came."""
        from ..training.tune import Hooks

        return Hooks(on_stage=self._stage, should_stop=lambda: self.requested)

    def _stage(self, text: str) -> None:
        self.under_way = text.startswith("training")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not (self.under_way or self._waits):
            raise KeyboardInterrupt
        self.requested = True


def resumable(folder: Path, work: Callable[[Hooks], Reply]) -> Reply:
    """Do work that writes beside a folder too, one run at a time. If it is interrupted, say how to resume."""
    from .._system.run_lock import held
    from ..training.tune import Interrupted

    with held([folder]), Interruption() as interruption:
        try:
            return work(interruption.hooks())
        except (Interrupted, KeyboardInterrupt):
            text = f"stopped; what is done is saved beside {folder}. To resume, run the same command"
            return Reply({"interrupted": True, "output": str(folder)}, text, code=130)
