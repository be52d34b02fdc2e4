"""The engine runs requests under any prompts as sequences of one scheduler.

Its thread repeats one turn of the batch (`serve.scheduler`): cancelled sequences leave, waiting requests are
added where there is room, and every sequence takes a step. Any thread may submit. A request keeps the version
of its prompt that it began with.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, final

import torch

from .._system.memory import free_memory
from ..errors import SoftPromptError
from ..lm import held_weights
from ..lm.causal import CausalLM
from .classify import classified
from .engine_thread import EngineThread
from .failures import as_failure, note
from .load import Room
from .prefix_cache import PrefixCache
from .registry import Loaded, Registry
from .request import Busy, InvalidRequest, Request, Stopped
from .scheduler import Scheduler
from .sequence import RunningSequence
from .stream import Answer
from .token_pieces import Pieces

MEMORY = 0.4  # share of the free memory for running sequences


@final
class Engine(EngineThread):
    """Answers requests for the prompts of a registry, many at a time."""

    where = ""  # it runs in this process

    def __init__(
        self,
        model: CausalLM,
        registry: Registry,
        *,
        max_rows: int = 64,
        max_tokens: int | None = None,
        queue: int = 256,
        cache_bytes: int = 2**29,
    ) -> None:
        """Prepare to run `max_rows` sequences in a store of `max_tokens` columns (None: by the free memory).

        `queue` more requests may wait. `cache_bytes` limits the keys and values that requests share. Raises
        SoftPromptError for a model whose keys and values do not represent its input.
        """
        super().__init__()
        self.model, self.registry = model, registry
        self.capacity = max_rows + queue  # answers that may run or wait
        self._room = Room(self.capacity)
        size = model.spec.kv_numbers_per_token * model.dtype.itemsize
        self.max_tokens = max_tokens or int(MEMORY * free_memory(str(model.device)) / size)
        self.prefix_cache = PrefixCache(cache_bytes)
        self._scheduler = Scheduler(model, max_rows, self.max_tokens, self.prefix_cache)
        self._waiting: deque[RunningSequence] = deque()
        self._jobs: deque[tuple[Callable[[], Any], str, Future]] = deque()
        self._classifying = 0  # only the event loop changes it
        self._ends = model.ends
        if model.tokenizer is None:
            raise SoftPromptError("this model was loaded without a tokenizer", fix="load it with one")
        self._pieces = Pieces(model.tokenizer)
        self._requests = 0

    # --- from any thread ---

    def submit(self, request: Request, loaded: Loaded | None = None) -> Answer:
        """Add a request. Raises Busy, Stopped, UnknownPrompt, BrokenPrompt, InvalidRequest and ModelFailed.

        `loaded` is the version of the prompt that the request was rendered for (None: the one on disk now).
        """
        with self._changed:
            self._check_room()
        if loaded is None and request.prompt is not None:
            loaded = self.registry.get(request.prompt)
        answer = Answer(request)
        try:
            row = RunningSequence(self.model, answer, loaded, self._ends, self._pieces)
        except SoftPromptError:
            raise
        except Exception as error:
            note(error, 1, [request.prompt])
            raise as_failure(error) from error
        if row.columns > self.max_tokens:
            raise InvalidRequest(
                f"{row.columns} columns of keys and values do not fit the server's memory",
                why=f"it has room for {self.max_tokens}",
                fix="shorten the input, or lower max_tokens",
            )
        with self._changed:
            self._check_room()
            self._waiting.append(row)
            self._room.take(answer)
            self._requests += 1
            self._changed.notify()
        return answer

    def classifying(
        self,
        prompt: str,
        rows: Sequence[str | Mapping[str, Any]],
        *,
        scale: float = 1.0,
        loaded: Loaded | None = None,
    ) -> Coroutine[Any, Any, list[dict[str, float]]]:
        """Return an awaitable of each row's labels (or choices) with their probabilities.

        Rows are checked and encoded at once, and errors in them raised. Awaiting holds no thread.
        """
        jobs, combined = classified(loaded or self.registry.get(prompt), rows, scale)
        with self._changed:
            self._check_room()

        async def scored() -> list[dict[str, float]]:
            scores: list[list[float]] = []
            self._classifying += 1
            try:
                for job in jobs:  # one at a time, so that others' jobs come between
                    scores += await asyncio.wrap_future(self._queued(job, prompt))
            finally:
                self._classifying -= 1
            return combined(scores)

        return scored()

    def numbers(self) -> dict[str, float]:
        return {
            "requests_total": float(self._requests),
            **self._scheduler.numbers(),
            "requests_running": float(len(self._scheduler)),
            "requests_waiting": float(len(self._waiting)),
            "prompts_bytes": float(self.registry.bytes),
            "prompts_outdated": float(self.registry.outdated),
        }

    @property
    def _has_work(self) -> bool:
        return bool(self._busy or self._classifying)

    @property
    def _busy(self) -> bool:
        return bool(self._scheduler.is_busy or self._waiting or self._jobs)

    def _check_room(self) -> None:
        """Raise Stopped or Busy; a cancelled answer takes no room. The caller holds the lock."""
        self._check_open()
        held = self._room.held() + len(self._jobs)
        if held >= self.capacity:
            wait = self._scheduler.wait(held)
            raise Busy(f"{held} answers are being computed or wait", fix="ask again later", retry_after=wait)

    def _queued(self, job: Callable[[], Any], prompt: str) -> Future:
        """Return the future result of a job, which the engine's thread runs between two steps."""
        future: Future = Future()
        with self._changed:
            if self._stopped:
                raise Stopped("the server has stopped", fix="ask again later")
            self._jobs.append((job, prompt, future))
            self._changed.notify()
        return future

    # --- the engine's thread ---

    def _loop(self) -> None:
        held_weights.hold(self.model)
        with torch.no_grad():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self._busy)
                    if self._stopped:
                        break
                try:
                    self.turn()
                except Exception as error:  # an unforeseen error must not end the thread
                    with self._changed:
                        self._scheduler.end_failed(error, self._waiting)

    def turn(self) -> None:
        """Run one job, admit what can be admitted, and take one step."""
        self._scheduler.leave_cancelled()
        if self._jobs:
            job, prompt, future = self._jobs.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except Exception as error:
                    note(error, 1, [prompt])
                    future.set_exception(as_failure(error))
        with held_weights.known(self.model):
            self._scheduler.arrive()
            with self._changed:
                self._scheduler.choose_next(self._waiting)
            self._scheduler.admit()
            self._scheduler.step()

    def _end_all(self, error: Stopped) -> None:
        scheduler = self._scheduler
        scheduler.end_rows(error)
        if scheduler.arriving is not None:
            scheduler.finish(scheduler.arriving, "error", error)
            scheduler.arriving = None
        while self._waiting:
            scheduler.finish(self._waiting.popleft(), "error", error)
        while self._jobs:
            future = self._jobs.popleft()[-1]
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
