"""vLLM's health is checked in the background when it is needed, and logged when it changes."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import final

from ...errors import SoftPromptError
from . import faults
from .client import Vllm

log = logging.getLogger("softprompt.serve")
FRESH = 1.0  # seconds for which a result is used again
PATIENCE = 0.3  # seconds that a caller waits for a new one; a Kubernetes probe waits 1 second


@final
class Pulse:
    """Remembers the last known health of `model` at `vllm`."""

    def __init__(self, vllm: Vllm, model: str) -> None:
        self.vllm, self.model = vllm, model
        self.problem: SoftPromptError | None = None
        self._checked_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def now(self) -> SoftPromptError | None:
        """Return why it does not answer, or None; if a check takes long, the previous result."""
        task = self._task
        if task is None or task.get_loop() is not asyncio.get_running_loop() or task.done():
            if time.monotonic() - self._checked_at < FRESH:
                return self.problem
            self._checked_at = time.monotonic()
            task = self._task = asyncio.create_task(self._refresh())
        await asyncio.wait({task}, timeout=PATIENCE)
        return self.problem

    async def _refresh(self) -> None:
        problem = await self.vllm.problem(self.model)
        if problem is not None and self.problem is None:
            log.error("degraded: %s", problem.line)
        elif problem is None and self.problem is not None:
            log.warning("%s answers again", faults.named(self.vllm.url, self.model))
        self.problem, self._checked_at = problem, time.monotonic()
