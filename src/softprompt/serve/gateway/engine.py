"""The engine of the gateway has the interface `http.protocols.AnsweringEngine`, and counters as its state.

An answer streams in its reader's event loop; when the reader stops, the connection is closed, and vLLM stops
computing.
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
        """Allow `capacity` answers at once; vLLM does not report its own capacity."""
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
        """Give running answers `drain` seconds to finish, then end them."""
        until = time.monotonic() + drain
        while self._running and time.monotonic() < until:
            time.sleep(0.01)
        self.stopped = True
        with self._lock:
            running = list(self._tasks)
        for task in running:  # vLLM may never send the rest
            with contextlib.suppress(RuntimeError):  # its loop has ended
                task.get_loop().call_soon_threadsafe(task.cancel)

    def submit(self, request: Request, loaded: CompiledPrompt | None = None) -> GatewayAnswer:
        """Start a request. Raises Busy, UnknownPrompt, BrokenPrompt and InvalidRequest.

        The answer raises what vLLM refuses.
        """
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
        """Return an awaitable of each row's label probabilities. Raises InvalidRequest at once."""
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
        rows = []
        with self.counted():
            try:
                for example in examples:
                    names = labels or example.rendered.choices or ()
                    scores = await self._scores(loaded, example.input_ids, example.candidates or ())
                    rows.append(probabilities(names, scores))
            except EngineFailed as error:
                raise await asyncio.to_thread(self.blame, loaded, error) from None
        return rows

    async def _scores(
        self, loaded: CompiledPrompt | None, ids: Sequence[int], candidates: Sequence[Sequence[int]]
    ) -> list[float]:
        """Return the log-probabilities of whole candidates: one request for each place where they differ."""
        entry = None if loaded is None else loaded.entry
        starts = {tuple(label[:n]) for label in candidates for n in range(len(label))}
        known: dict[tuple[int, ...], float] = {}
        for start in sorted(starts):
            there = len(start)
            longer = [label for label in candidates if len(label) > there and tuple(label[:there]) == start]
            tokens = sorted({label[there] for label in longer})
            soft = self._soft(loaded, len(ids))
            body = await asyncio.to_thread(  # it may read embeddings from disk
                translate.scored, [*ids, *start], entry, self.model, tokens, soft
            )
            scores = translate.scores_of(await self.vllm.complete(body), tokens)
            if scores is None:
                raise faults.unreadable(self.where, "it lacks the requested log-probabilities")
            known |= {(*start, token): value for token, value in scores.items()}
        return [sum(known[tuple(label[: n + 1])] for n in range(len(label))) for label in candidates]

    async def problem(self) -> SoftPromptError | None:
        return await self._pulse.now()

    def blame(self, loaded: CompiledPrompt | None, error: EngineFailed) -> SoftPromptError:
        """Blame the prompt if its content is no longer good, else the engine."""
        if loaded is not None and not isinstance(error, EngineAway):  # then vLLM never read the prompt
            try:
                self.registry.check(loaded.entry, again=True)
            except SoftPromptError as broken:
                return BrokenPrompt(broken.what, broken.why, broken.fix)
        return error

    def numbers(self) -> dict[str, float]:
        return {
            **{f"{name}_total": float(n) for name, n in self._counts.items()},
            **{f"finished_{reason}_total": float(n) for reason, n in self._finished.items()},
            "requests_running": float(self._running),
            "prompts_outdated": float(self.registry.outdated),
        }

    @functools.cached_property
    def _controls(self) -> dict[int, str]:
        return control_tokens(self.tokenizer)

    @functools.cached_property
    def piece(self) -> Callable[[int], str]:
        """A function that returns the text of a single token."""
        return functools.lru_cache(100_000)(lambda token: self.tokenizer.decode([token]))

    def ended(self, reason: Reason, read: int, written: int, seconds: float) -> None:
        with self._lock:
            if reason in REASONS.values():
                self._pace.ended(seconds)
            self._finished[reason] += 1
            self._counts["input_tokens"] += read
            self._counts["output_tokens"] += written

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request while it runs in the current task. Raises Stopped where the engine ends it."""
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
        """Return the function that embeds ids, with soft tokens after `inputs` of them (None: all)."""
        if loaded is None or loaded.entry.kind != "after":
            return None
        entry = loaded.entry
        return lambda ids: self.registry.soft(entry, ids[:inputs], ids[inputs:] if inputs else ())
