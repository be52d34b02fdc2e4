"""/v1/chat/completions: messages are answered, through a prompt's own template or as the model's chat."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from ..request import Finished, Token
from .errors import ApiError
from .keys import Key
from .requests import ChatRequest
from .responses import ChatChoice, ChatCompletion, ChatLogprobs, ChatMessage, TokenLogprob, TopLogprob
from .service import Service, Target
from .streaming import (
    RESPONSES,
    Choice,
    Parts,
    answered,
    check_count,
    check_streaming,
    now,
    submit,
    usage,
    usage_so_far,
)


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=RESPONSES,
    )
    async def chat(asked: ChatRequest, http: Request) -> Any:
        _check(asked)
        target, choices = await run_in_threadpool(partial(_begin, service, asked, http.state.key))
        return await answered(service, http, asked, choices, _Reply(service, asked, target, choices))

    return router


def _check(asked: ChatRequest) -> None:
    if asked.max_tokens is not None and asked.max_completion_tokens not in (None, asked.max_tokens):
        message = "max_tokens and max_completion_tokens say different things."
        raise ApiError(400, message, param="max_completion_tokens")
    if asked.top_logprobs and not asked.logprobs:
        raise ApiError(400, "top_logprobs go with logprobs=true.", param="top_logprobs")
    check_streaming(asked)


def _begin(service: Service, asked: ChatRequest, key: Key) -> tuple[Target, list[Choice]]:
    check_count(service, 1, asked.n)
    target = service.target(asked.model, key)
    wanted = asked.max_completion_tokens or asked.max_tokens
    given = service.inputs.chat(target.loaded, asked.messages, asked.rendering or "auto", wanted)
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    return target, submit(service, target, asked, [given], wanted, service.limits.output_tokens, logprobs)


class _Reply:
    """The answers in OpenAI's shape, whole or in pieces."""

    def __init__(
        self, service: Service, asked: ChatRequest, target: Target, choices: Sequence[Choice]
    ) -> None:
        self.service, self.asked, self.choices = service, asked, choices
        self.frame = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": now(),
            "model": target.name,
            "system_fingerprint": target.fingerprint,
        }

    def whole(self) -> ChatCompletion:
        said = [
            ChatChoice(
                index=index,
                message=ChatMessage(content=choice.text),
                logprobs=self._logprobs(choice.tokens),
                finish_reason=choice.end.reason if choice.end else None,  # type: ignore[arg-type]
            )
            for index, choice in enumerate(self.choices)
        ]
        used, reading = usage(self.service, self.choices), self.choices[0].given.reading
        return ChatCompletion(**self.frame, choices=said, usage=used, softprompt=reading)

    async def chunks(self, parts: Parts) -> AsyncIterator[dict[str, Any]]:
        for index in range(len(self.choices)):
            delta = {"role": "assistant", "content": "", "refusal": None}
            reading = self.choices[index].given.reading.model_dump()
            yield self._chunk(index, delta, softprompt=reading)
        async for index, part in parts:
            if isinstance(part, Finished):
                yield self._chunk(index, {}, part.reason)
            elif part.text or self.asked.logprobs:
                yield self._chunk(index, {"content": part.text}, tokens=[part])
        used = usage(self.service, self.choices)
        if self.asked.tells_usage:
            kind = "chat.completion.chunk"
            yield {**self.frame, "object": kind, "choices": [], "usage": used.model_dump()}

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        reason: str | None = None,
        tokens: Sequence[Token] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        before = len(self.choices[index].tokens) - len(tokens or ())
        scores = None if tokens is None else self._logprobs(tokens, before)
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": None if scores is None else scores.model_dump(),
            "finish_reason": reason,
        }
        if self.asked.tells_progress:
            more["usage"] = usage_so_far(self.choices)
        elif self.asked.tells_usage:
            more["usage"] = None
        return {**self.frame, "object": "chat.completion.chunk", "choices": [choice], **more}

    def _logprobs(self, tokens: Sequence[Token], first: int = 0) -> ChatLogprobs | None:
        """`first`: how many tokens of the answer came before these."""
        if not self.asked.logprobs:
            return None
        return ChatLogprobs(content=[self._scored(token, first + i == 0) for i, token in enumerate(tokens)])

    def _scored(self, token: Token, first: bool) -> TokenLogprob:
        inputs = self.service.inputs
        tops = [
            TopLogprob(
                token=inputs.name(Token(id, text), first), logprob=value, bytes=inputs.bytes(id, first)
            )
            for id, text, value in token.top
        ]
        name, data = inputs.name(token, first), inputs.bytes(token.id, first)
        return TokenLogprob(token=name, logprob=token.logprob or 0.0, bytes=data, top_logprobs=tops)
