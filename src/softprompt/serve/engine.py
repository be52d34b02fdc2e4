"""The engine: requests become rows of one running batch, whatever prompt each is under.

One thread takes turns with the batch (`serve.scheduler`): rows that were cancelled leave, requests that wait
join as far as there is room, and every row takes a step. Any thread may submit. What is loaded for a request
is held by it, so it goes on under the version that it began with.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, final

import torch

from .._system.memory import free_memory
from ..errors import SoftPromptError
from ..lm.causal import CausalLM
from .classify import classified
from .failures import as_failure, note
from .load import Room
from .prefix_cache import Reuse
from .registry import Loaded, Registry
from .request import Busy, InvalidRequest, Request, Stopped
from .scheduler import Batching
from .sequence import RunningSequence
from .stream import Answer
from .token_pieces import Pieces

MEMORY = 0.4  # of what is free, for the rows that run


@final
class Engine:
    """Answers requests for the prompts of a registry, many at a time."""

    where = ""  # in this process

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
        """`max_rows` at once, in a store of `max_tokens` columns (None: by the memory that is free).

        `queue` more requests may wait. `cache_bytes` hold keys and values that requests share. Raises
        SoftPromptError for a model whose keys and values do not stand for its input.
        """
        self.model, self.registry = model, registry
        self.capacity = max_rows + queue  # answers that may be in hand
        self._room = Room(self.capacity)
        size = model.spec.kv_numbers_per_token * model.dtype.itemsize
        self.max_tokens = max_tokens or int(MEMORY * free_memory(str(model.device)) / size)
        self.reuse = Reuse(cache_bytes)
        self._batch = Batching(model, max_rows, self.max_tokens, self.reuse)
        self._waiting: deque[RunningSequence] = deque()
        self._jobs: deque[tuple[Callable[[], Any], str, Future]] = deque()
        self._changed = threading.Condition()
        self._classifying = 0  # by the event loop alone
        self._closing = self._stopped = False
        self._thread: threading.Thread | None = None
        self._ends = model.ends
        if model.tokenizer is None:
            raise SoftPromptError("this model was loaded without a tokenizer", fix="load it with one")
        self._pieces = Pieces(model.tokenizer)
        self._requests = 0

    # --- from any thread ---

    def start(self) -> None:
        """Begin to answer."""
        self._closing = self._stopped = False
        self._thread = threading.Thread(target=self._loop, name="softprompt-engine", daemon=True)
        self._thread.start()

    def stop(self, *, drain: float = 0) -> None:
        """Take no more; what is not answered within `drain` seconds ends with an error."""
        with self._changed:
            self._closing = True
        until = time.monotonic() + drain
        while time.monotonic() < until and (self._busy or self._classifying):
            time.sleep(0.01)
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._end_all(Stopped("the server has stopped", fix="ask again later"))

    def submit(self, request: Request, loaded: Loaded | None = None) -> Answer:
        """Raises Busy, Stopped, UnknownPrompt, BrokenPrompt, InvalidRequest and ModelFailed.

        `loaded` is the prompt's version that the request was rendered for; None: the one on disk now.
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
                why=f"it was given room for {self.max_tokens}",
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
        jobs, together = classified(self.model, loaded or self.registry.get(prompt), rows, scale)
        with self._changed:
            self._check_room()

        async def found() -> list[dict[str, float]]:
            scores: list[list[float]] = []
            self._classifying += 1
            try:
                for job in jobs:  # one at a time, so that others' jobs come between
                    scores += await asyncio.wrap_future(self._queued(job, prompt))
            finally:
                self._classifying -= 1
            return together(scores)

        return found()

    async def problem(self) -> SoftPromptError | None:
        """Why nothing is answered now; None where all is well."""
        if self._thread is None or self._thread.is_alive() or self._closing:
            return None
        return SoftPromptError(
            "the engine's thread has ended", fix="start the server again; its log says why"
        )

    def numbers(self) -> dict[str, float]:
        """Counters, and what is going on now."""
        return {
            "requests_total": float(self._requests),
            **self._batch.numbers(),
            "requests_running": float(len(self._batch)),
            "requests_waiting": float(len(self._waiting)),
            "prompts_bytes": float(self.registry.bytes),
            "prompts_outdated": float(self.registry.outdated),
        }

    @property
    def _busy(self) -> bool:
        return bool(self._batch.is_busy or self._waiting or self._jobs)

    def _check_room(self) -> None:
        """With the lock held. Raises Stopped and Busy; an answer that was cancelled takes no room."""
        if self._closing:
            raise Stopped("the server is stopping", fix="ask another one, or again later")
        held = self._room.held() + len(self._jobs)
        if held >= self.capacity:
            wait = self._batch.wait(held)
            raise Busy(f"{held} answers are being computed or wait", fix="ask again later", retry_after=wait)

    def _queued(self, job: Callable[[], Any], prompt: str) -> Future:
        """What will be the job's result, done by the engine's thread between two steps."""
        future: Future = Future()
        with self._changed:
            if self._stopped:
                raise Stopped("the server has stopped", fix="ask again later")
            self._jobs.append((job, prompt, future))
            self._changed.notify()
        return future

    # --- the engine's thread ---

    def _loop(self) -> None:
        with torch.no_grad():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self._busy)
                    if self._stopped:
                        break
                try:
                    self.turn()
                except Exception as error:  # one that nobody foresaw must not end the thread
                    with self._changed:
                        self._batch.end_failed(error, self._waiting)

    def turn(self) -> None:
        """Whatever can be done now, and one step."""
        self._batch.leave_cancelled()
        if self._jobs:
            job, prompt, future = self._jobs.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except Exception as error:
                    note(error, 1, [prompt])
                    future.set_exception(as_failure(error))
        self._batch.arrive()
        with self._changed:
            self._batch.choose_next(self._waiting)
        self._batch.admit()
        self._batch.step()

    def _end_all(self, error: Stopped) -> None:
        """Nobody is answered any more."""
        batch = self._batch
        batch.end_rows(error)
        if batch.arriving is not None:
            batch.finish(batch.arriving, "error", error)
            batch.arriving = None
        while self._waiting:
            batch.finish(self._waiting.popleft(), "error", error)
        while self._jobs:
            future = self._jobs.popleft()[-1]
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
