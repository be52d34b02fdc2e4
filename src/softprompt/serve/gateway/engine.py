"""The engine's interface over vLLM (see `http.protocols.AnsweringEngine`). Holds no state but counters.

An answer streams in the event loop of whoever reads it; leaving it closes the connection, upon which vLLM
stops computing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, final

from ...data.example import Example
from ...errors import SoftPromptError
from ..label_scores import check_kind, encoded, probabilities
from ..load import Pace, Room
from ..request import BrokenPrompt, Busy, EngineAway, EngineFailed, InvalidRequest, Reason, Request, Stopped
from ..token_pieces import control_tokens
from . import faults, translate
from .answer import REASONS, GatewayAnswer
from .client import Vllm
from .pulse import Pulse
from .registry import CompiledPrompt, CompiledRegistry


@final
class VllmEngine:
    """Answers requests for compiled prompts through vLLM, which serves `model`."""

    def __init__(
        self, vllm: Vllm, registry: CompiledRegistry, model: str, tokenizer: Any, capacity: int = 320
    ) -> None:
        """`capacity`: answers that may be in hand at once; what vLLM holds it does not say."""
        self.vllm, self.registry, self.model, self.tokenizer = vllm, registry, model, tokenizer
        self.where = faults.named(vllm.url, model)
        self.stopped = False
        self.capacity, self._room, self._pace = capacity, Room(capacity), Pace()
        self._pulse = Pulse(vllm, model)
        self._running = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._counts = dict.fromkeys(("requests", "input_tokens", "output_tokens"), 0)
        self._finished = dict.fromkeys(("stop", "length", "cancelled", "error"), 0)
        self._lock = threading.Lock()

    def start(self) -> None:
        """There is nothing to start."""

    def stop(self, *, drain: float = 0) -> None:
        """What runs has `drain` seconds to end; then it is ended."""
        until = time.monotonic() + drain
        while self._running and time.monotonic() < until:
            time.sleep(0.01)
        self.stopped = True
        with self._lock:
            running = list(self._tasks)
        for task in running:  # vLLM may never send what it waits for
            with contextlib.suppress(RuntimeError):  # its loop has ended
                task.get_loop().call_soon_threadsafe(task.cancel)

    def submit(self, request: Request, loaded: CompiledPrompt | None = None) -> GatewayAnswer:
        """Raises Busy, UnknownPrompt, BrokenPrompt, InvalidRequest; what vLLM refuses, the answer raises."""
        if self.stopped:
            raise Stopped("stopping")
        if loaded is None and request.prompt is not None:
            loaded = self.registry.get(request.prompt)
        entry = None if loaded is None else loaded.entry
        body = translate.body(request, entry, self.model, self._soft(loaded), self._controls)
        answer = GatewayAnswer(self, request, loaded, body)
        with self._lock:
            held = self._room.held()
            if held >= self.capacity:
                wait = self._pace.wait(held, held, time.monotonic() - self._room.oldest)
                raise Busy(f"{held} answers are being computed", fix="ask again later", retry_after=wait)
            self._room.take(answer)
        return answer

    def classifying(
        self,
        prompt: str,
        rows: Sequence[str | Mapping[str, Any]],
        *,
        scale: float = 1.0,
        loaded: CompiledPrompt | None = None,
    ) -> Coroutine[Any, Any, list[dict[str, float]]]:
        """Probabilities of each row's labels (or choices), once awaited. Raises InvalidRequest at once."""
        loaded = loaded or self.registry.get(prompt)
        encoder, name = loaded.encoder, loaded.entry.prompt
        check_kind(loaded.name, encoder.kind)
        if scale not in (0, 1):
            raise InvalidRequest(f"strength {scale:g} is not served by vLLM", fix="use strength 1 or 0")
        examples = encoded(encoder, rows, name)
        return self._classified(loaded if scale else None, encoder.labels, examples)

    async def _classified(
        self, loaded: CompiledPrompt | None, labels: Sequence[str] | None, examples: Sequence[Example]
    ) -> list[dict[str, float]]:
        found = []
        with self.counted():
            try:
                for example in examples:
                    names = labels or example.rendered.choices or ()
                    scores = await self._scores(loaded, example.input_ids, example.candidates or ())
                    found.append(probabilities(names, scores))
            except EngineFailed as error:
                raise await asyncio.to_thread(self.blame, loaded, error) from None
        return found

    async def _scores(
        self, loaded: CompiledPrompt | None, ids: Sequence[int], candidates: Sequence[Sequence[int]]
    ) -> list[float]:
        """Log-probabilities of whole candidates: a request for each place where they part."""
        entry = None if loaded is None else loaded.entry
        starts = {tuple(one[:n]) for one in candidates for n in range(len(one))}
        known: dict[tuple[int, ...], float] = {}
        for start in sorted(starts):
            there = len(start)
            going_on = [one for one in candidates if len(one) > there and tuple(one[:there]) == start]
            tokens = sorted({one[there] for one in going_on})
            soft = self._soft(loaded, len(ids))
            asked = await asyncio.to_thread(
                translate.scored, [*ids, *start], entry, self.model, tokens, soft
            )  # of an input as embeddings, which are read from disk
            said = translate.scores_of(await self.vllm.complete(asked), tokens)
            if said is None:
                raise faults.unreadable(self.where, "it lacks the log-probabilities that were asked for")
            known |= {(*start, token): value for token, value in said.items()}
        return [sum(known[tuple(one[: n + 1])] for n in range(len(one))) for one in candidates]

    async def problem(self) -> SoftPromptError | None:
        """Why vLLM does not answer now; None where it does."""
        return await self._pulse.now()

    def blame(self, loaded: CompiledPrompt | None, error: EngineFailed) -> SoftPromptError:
        """The prompt, where its content is not good any more; else the engine."""
        if loaded is not None and not isinstance(error, EngineAway):  # which never looked at it
            try:
                self.registry.check(loaded.entry, again=True)
            except SoftPromptError as broken:
                return BrokenPrompt(broken.what, broken.why, broken.fix)
        return error

    def numbers(self) -> dict[str, float]:
        """Counters, and what is going on now; vLLM's own /metrics has the rest."""
        return {
            **{f"{name}_total": float(n) for name, n in self._counts.items()},
            **{f"finished_{reason}_total": float(n) for reason, n in self._finished.items()},
            "requests_running": float(self._running),
            "prompts_outdated": float(self.registry.outdated),
        }

    def piece(self, token: int) -> str:
        """Its text by itself."""
        return self._piece(token)

    @functools.cached_property
    def _controls(self) -> dict[int, str]:
        return control_tokens(self.tokenizer)

    @functools.cached_property
    def _piece(self) -> Callable[[int], str]:
        return functools.lru_cache(100_000)(lambda token: self.tokenizer.decode([token]))

    def ended(self, reason: Reason, read: int, made: int, seconds: float) -> None:
        """Count a request that ended."""
        with self._lock:
            if reason in REASONS.values():
                self._pace.ended(seconds)
            self._finished[reason] += 1
            self._counts["input_tokens"] += read
            self._counts["output_tokens"] += made

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """While a request runs, in a task of its own. Raises Stopped where the engine ends it."""
        task = asyncio.current_task()
        assert task is not None
        with self._lock:
            self._running += 1
            self._counts["requests"] += 1
            self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self.stopped:
                raise
            raise Stopped("stopping") from None
        finally:
            with self._lock:
                self._running -= 1
                self._tasks.discard(task)

    def _soft(self, loaded: CompiledPrompt | None, inputs: int | None = None) -> translate.Soft | None:
        """Embeddings under soft tokens after the first `inputs` ids; those after them were answered."""
        if loaded is None or loaded.entry.kind != "after":
            return None
        entry = loaded.entry
        return lambda ids: self.registry.soft(entry, ids[:inputs], ids[inputs:] if inputs else ())
