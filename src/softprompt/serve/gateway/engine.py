"""The engine's interface over vLLM: `submit`, `classify`, `numbers`, `stop`. Holds no state but counters.

An answer streams in the event loop of whoever reads it; leaving it closes the connection, upon which vLLM
stops computing.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, final

from ...errors import SoftPromptError
from ..labels import check_kind, probabilities
from ..request import BrokenPrompt, Finished, InvalidRequest, Reason, Request, Stopped, Token
from . import translate
from .client import EngineFailed, Vllm
from .registry import CompiledRegistry, Loaded

REASONS: dict[str, Reason] = {"stop": "stop", "length": "length", "abort": "cancelled"}


@final
class GatewayAnswer:
    """Tokens of one request and, as the last thing, `Finished`. Read once."""

    echoed: tuple[Token, ...] = ()

    def __init__(
        self, engine: VllmEngine, request: Request, loaded: Loaded | None, body: dict[str, Any]
    ) -> None:
        self.request, self._engine, self._loaded, self._body = request, engine, loaded, body
        self.cancelled = False

    def cancel(self) -> None:
        """No more is read, and the connection closed, at the next token."""
        self.cancelled = True

    async def __aiter__(self) -> AsyncIterator[Token | Finished]:
        made, reason = 0, "abort"
        with self._engine.counted():
            try:
                async with contextlib.aclosing(self._engine.vllm.stream(self._body)) as chunks:
                    async for chunk in chunks:
                        if self.cancelled or self._engine.stopped:
                            break
                        for choice in chunk.get("choices", ()):
                            for token in self._tokens(choice):
                                made += 1
                                yield token
                            reason = choice.get("finish_reason") or reason
            except EngineFailed as error:
                blamed = self._engine.blame(self._loaded, error)
                if blamed is not error:
                    raise blamed from None
                yield self._end("error", made, error)
                return
            if reason == "abort" and self._engine.stopped:
                yield self._end("error", made, Stopped("stopping"))
            else:
                yield self._end(REASONS.get(reason, "error"), made)

    def _tokens(self, choice: Mapping[str, Any]) -> list[Token]:
        """Tokens of one chunk; its text belongs to the last, which completes it."""
        ids, said = choice.get("token_ids") or [], choice.get("logprobs") or {}
        own = said.get("token_logprobs") or [None] * len(ids)
        tops = said.get("top_logprobs") or [None] * len(ids)
        most = self.request.sampling.logprobs or 0
        tokens = []
        for number, (token, logprob, top) in enumerate(zip(ids, own, tops, strict=False)):
            named = list(translate.logprobs_of(top or {}).items())[:most]
            shown = tuple((other, self._engine.piece(other), value) for other, value in named)
            text = choice.get("text", "") if number == len(ids) - 1 else ""
            tokens.append(Token(token, text, logprob, shown))
        return tokens

    def _end(self, reason: Reason, made: int, error: SoftPromptError | None = None) -> Finished:
        vectors = 0 if self._loaded is None or self.request.scale == 0 else self._loaded.entry.length
        self._engine.ended(reason, len(self.request.input_ids), made)
        return Finished(reason, error, len(self.request.input_ids), made, vectors)


@final
class VllmEngine:
    """Answers requests for compiled prompts through vLLM, which serves `model`."""

    def __init__(self, vllm: Vllm, registry: CompiledRegistry, model: str, tokenizer: Any) -> None:
        self.vllm, self.registry, self.model, self.tokenizer = vllm, registry, model, tokenizer
        self.stopped = False
        self._running = 0
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

    def submit(self, request: Request, loaded: Loaded | None = None) -> GatewayAnswer:
        """Raises UnknownPrompt, BrokenPrompt and InvalidRequest; what vLLM refuses, the answer raises."""
        if self.stopped:
            raise Stopped("stopping")
        if loaded is None and request.prompt is not None:
            loaded = self.registry.get(request.prompt)
        entry = None if loaded is None else loaded.entry
        return GatewayAnswer(
            self, request, loaded, translate.body(request, entry, self.model, self._soft(loaded))
        )

    def classify(
        self,
        prompt: str,
        rows: Sequence[str | Mapping[str, Any]],
        *,
        scale: float = 1.0,
        loaded: Loaded | None = None,
    ) -> list[dict[str, float]]:
        """Probabilities of each row's labels (or choices). Waits for them."""
        loaded = loaded or self.registry.get(prompt)
        encoder = loaded.tuned.encoder
        check_kind(loaded.name, encoder.kind)
        if scale not in (0, 1):
            raise InvalidRequest(f"strength {scale:g} is not served by vLLM", fix="use strength 1 or 0")
        found = []
        for row in rows:
            example = encoder.encode(row, with_target=False, prompt=encoder.prompts[loaded.index])
            names = encoder.labels or example.rendered.choices or ()
            read = loaded if scale else None
            found.append(
                probabilities(names, self._scores(read, example.input_ids, example.candidates or ()))
            )
        return found

    def _scores(self, loaded: Loaded | None, ids: Sequence[int], candidates: Sequence[Sequence[int]]) -> list:
        """Log-probabilities of whole candidates: a request for each place where they part."""
        entry = None if loaded is None else loaded.entry
        starts = {tuple(one[:n]) for one in candidates for n in range(len(one))}
        known: dict[tuple[int, ...], float] = {}
        for start in sorted(starts):
            there = len(start)
            going_on = [one for one in candidates if len(one) > there and tuple(one[:there]) == start]
            tokens = sorted({one[there] for one in going_on})
            soft = self._soft(loaded, len(ids))
            asked = translate.scored([*ids, *start], entry, self.model, tokens, soft)
            try:
                said = self.vllm.complete(asked)
            except EngineFailed as error:
                raise self.blame(loaded, error) from None
            (top,) = said["choices"][0]["logprobs"]["top_logprobs"]
            known |= {(*start, token): value for token, value in translate.logprobs_of(top).items()}
        return [sum(known[tuple(one[: n + 1])] for n in range(len(one))) for one in candidates]

    def blame(self, loaded: Loaded | None, error: EngineFailed) -> SoftPromptError:
        """The prompt, where its content is not good any more; else the engine."""
        if loaded is not None:
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
        }

    def piece(self, token: int) -> str:
        """Its text by itself."""
        return self._piece(token)

    @functools.cached_property
    def _piece(self) -> Callable[[int], str]:
        return functools.lru_cache(100_000)(lambda token: self.tokenizer.decode([token]))

    def ended(self, reason: Reason, read: int, made: int) -> None:
        """Count a request that ended."""
        with self._lock:
            self._finished[reason] += 1
            self._counts["input_tokens"] += read
            self._counts["output_tokens"] += made

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """While a request runs."""
        with self._lock:
            self._running += 1
            self._counts["requests"] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def _soft(self, loaded: Loaded | None, inputs: int | None = None) -> translate.Soft | None:
        """Embeddings under soft tokens after the first `inputs` ids; those after them were answered."""
        if loaded is None or loaded.entry.kind != "after":
            return None
        entry = loaded.entry
        return lambda ids: self.registry.soft(entry, ids[:inputs], ids[inputs:] if inputs else ())
