"""Whether vLLM answers: asked when somebody wants to know, in the background, and logged when it changes."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import final

from ...errors import SoftPromptError
from . import faults
from .client import Vllm

log = logging.getLogger("softprompt.serve")
FRESH = 1.0  # seconds for which an answer is taken to hold
PATIENCE = 0.3  # that a caller waits for a new one: Kubernetes gives a probe 1 second


@final
class Pulse:
    """The last that is known of `model` at `vllm`."""

    def __init__(self, vllm: Vllm, model: str) -> None:
        self.vllm, self.model = vllm, model
        self.problem: SoftPromptError | None = None
        self._asked = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def now(self) -> SoftPromptError | None:
        """Why it does not answer; None where it does. What was known before, where it takes long to say."""
        task = self._asking
        if task is None or task.get_loop() is not asyncio.get_running_loop() or task.done():
            if time.monotonic() - self._asked < FRESH:
                return self.problem
            self._asked = time.monotonic()
            task = self._asking = asyncio.create_task(self._ask())
        await asyncio.wait({task}, timeout=PATIENCE)
        return self.problem

    async def _ask(self) -> None:
        found = await self.vllm.problem(self.model)
        if found is not None and self.problem is None:
            log.error("degraded: %s", found.line)
        elif found is None and self.problem is not None:
            log.warning("%s answers again", faults.named(self.vllm.url, self.model))
        self.problem, self._asked = found, time.monotonic()
