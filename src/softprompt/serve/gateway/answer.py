"""An answer is read as vLLM streams it. Tokens that arrived are passed on before a later error is raised."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, final

from ...errors import SoftPromptError
from ..request import EngineFailed, Finished, Reason, Request, Stopped, Token
from . import faults, translate

if TYPE_CHECKING:
    from .engine import VllmEngine
    from .registry import CompiledPrompt

log = logging.getLogger("softprompt.serve")
REASONS: dict[str, Reason] = {"stop": "stop", "length": "length"}
GIVEN_UP = ("abort", "error")  # reasons of an answer that is not complete
REST = 1.0  # seconds for a stream to end after its answer, so that the connection can be reused
UNNAMED = -1  # id of a token for which vLLM gave none


@final
class GatewayAnswer:
    """Yields the tokens of one request and, at the end, `Finished`. Raises the errors of `faults`."""

    echoed: tuple[Token, ...] = ()

    def __init__(
        self, engine: VllmEngine, request: Request, loaded: CompiledPrompt | None, body: dict[str, Any]
    ) -> None:
        self.request, self._engine, self._loaded, self._body = request, engine, loaded, body
        self.cancelled = self.ended = False
        self.begun = time.monotonic()

    def cancel(self) -> None:
        """Stop reading, and close the connection, at the next token."""
        self.cancelled = True

    async def __aiter__(self) -> AsyncIterator[Token | Finished]:
        written, counted, word = 0, 0, ""
        with self._engine.counted():
            try:
                async with contextlib.aclosing(self._engine.vllm.stream(self._body)) as chunks:
                    async for chunk in chunks:
                        if self.cancelled or self._engine.stopped:
                            break
                        tokens, word = read(chunk, self._engine.where, self._engine.piece, self.request)
                        for token in tokens:
                            written += 1
                            yield token
                        if word:
                            counted = await _rest(chunks)
                            break
                reason = self._reason(word)
            except EngineFailed as error:
                self._ended("error", written)
                raise await asyncio.to_thread(self._engine.blame, self._loaded, error) from None
            except SoftPromptError:
                self._ended("error", written)
                raise
            yield self._ended(reason, counted or written)

    def _reason(self, word: str) -> Reason:
        """Translate vLLM's reason for the end. Raises EngineFailed where the answer is not complete."""
        if word in REASONS:
            return REASONS[word]
        if self.cancelled:
            return "cancelled"
        if self._engine.stopped:
            raise Stopped("stopping")
        if not word or word in GIVEN_UP:
            problem = f"{self._engine.where} {'gave its answer up' if word else 'broke off its answer'}"
            why = f"it ended it with '{word}'" if word else "its stream ended without a reason"
            raise EngineFailed(problem, why, "ask again; its log may say why")
        log.warning("%s ended an answer with '%.40s', which is reported as 'stop'", self._engine.where, word)
        return "stop"

    def _ended(self, reason: Reason, written: int) -> Finished:
        vectors = 0 if self._loaded is None or self.request.scale == 0 else self._loaded.entry.length
        self.ended = True
        self._engine.ended(reason, len(self.request.input_ids), written, time.monotonic() - self.begun)
        return Finished(reason, None, len(self.request.input_ids), written, vectors)


def read(
    chunk: Mapping[str, Any], engine: str, piece: Callable[[int], str], request: Request
) -> tuple[list[Token], str]:
    """Return the tokens of one chunk, and the reason for the end if it is the last one.

    `piece` returns the text of a token. Raises EngineFailed for a chunk that does not have vLLM's form.
    """
    try:
        tokens, word = [], ""
        for choice in chunk.get("choices") or ():
            tokens += _tokens(choice, piece, request.sampling.logprobs)
            word = str(choice.get("finish_reason") or word)
        return tokens, word
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise faults.unreadable(engine, f"a part of it is not as expected ({type(error).__name__})") from None


def _tokens(choice: Mapping[str, Any], piece: Callable[[int], str], most: int | None) -> list[Token]:
    """Return the tokens of a choice; the text belongs to the last one, which completes it."""
    logprobs, text = choice.get("logprobs") or {}, choice.get("text") or ""
    if not isinstance(text, str):
        raise TypeError
    ids = choice.get("token_ids") or [translate.token_id(name) for name in logprobs.get("tokens") or ()]
    if not ids:
        if text and most is not None:  # log-probabilities need token ids
            raise ValueError
        return [Token(UNNAMED, text)] if text else []
    values, tops = logprobs.get("token_logprobs") or (), logprobs.get("top_logprobs") or ()
    tokens = []
    for token, logprob, top in list(zip_longest(ids, values, tops))[: len(ids)]:
        named = list(translate.logprobs_of(top or {}).items())[: most or 0]
        shown = tuple((other, piece(other), value) for other, value in named)
        tokens.append(Token(int(token), "", logprob, shown))
    last = tokens[-1]
    return [*tokens[:-1], Token(last.id, text, last.logprob, last.top)]


async def _rest(chunks: AsyncIterator[Mapping[str, Any]]) -> int:
    """Return vLLM's count of the answer's tokens, or 0; other events after the end are ignored."""
    counted = 0

    async def read_on() -> None:
        nonlocal counted
        async for chunk in chunks:
            usage = chunk.get("usage")
            count = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
            counted = count if isinstance(count, int) else counted

    with contextlib.suppress(SoftPromptError, asyncio.TimeoutError):
        await asyncio.wait_for(read_on(), REST)
    return counted
