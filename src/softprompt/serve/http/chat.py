"""/v1/chat/completions answers messages, through a prompt's own template or as the model's chat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from ..request import Finished, Token
from .choices import Choice, check_count, check_streaming, chunk_usage, submit, usage
from .errors import ApiError
from .keys import Key
from .requests import ChatRequest
from .responses import ChatChoice, ChatCompletion, ChatLogprobs, ChatMessage, TokenLogprob, TopLogprob
from .service import Service, Target
from .streaming import RESPONSES, Parts, answered, frame


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/chat/completions", response_model=ChatCompletion, responses=RESPONSES)
    async def chat(body: ChatRequest, http: Request) -> Any:
        _check(body)
        target, choices = await run_in_threadpool(partial(_begin, service, body, http.state.key))
        return await answered(service, http, body, choices, _Reply(service, body, target, choices))

    return router


def _check(body: ChatRequest) -> None:
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        message = "max_tokens and max_completion_tokens differ: send one of them."
        raise ApiError(400, message, param="max_completion_tokens")
    if body.top_logprobs and not body.logprobs:
        raise ApiError(400, "top_logprobs need logprobs=true.", param="top_logprobs")
    check_streaming(body)


def _begin(service: Service, body: ChatRequest, key: Key) -> tuple[Target, list[Choice]]:
    check_count(service, 1, body.n)
    target = service.target(body.model, key)
    wanted = body.max_completion_tokens or body.max_tokens
    given = service.inputs.chat(target.loaded, body.messages, body.rendering or "auto", wanted)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return target, submit(service, target, body, [given], wanted, service.limits.output_tokens, logprobs)


class _Reply:
    def __init__(
        self, service: Service, body: ChatRequest, target: Target, choices: Sequence[Choice]
    ) -> None:
        self.service, self.body, self.choices = service, body, choices
        self.frame = frame("chatcmpl", target)

    def whole(self) -> ChatCompletion:
        choices = [
            ChatChoice(
                index=index,
                message=ChatMessage(content=choice.text),
                logprobs=self._logprobs(choice.tokens),
                finish_reason=choice.end.reason if choice.end else None,  # type: ignore[arg-type]
            )
            for index, choice in enumerate(self.choices)
        ]
        used, reading = usage(self.service, self.choices), self.choices[0].given.reading
        return ChatCompletion(**self.frame, choices=choices, usage=used, softprompt=reading)

    async def chunks(self, parts: Parts) -> AsyncIterator[dict[str, Any]]:
        for index in range(len(self.choices)):
            delta = {"role": "assistant", "content": "", "refusal": None}
            reading = self.choices[index].given.reading.model_dump()
            yield self._chunk(index, delta, softprompt=reading)
        async for index, part in parts:
            if isinstance(part, Finished):
                yield self._chunk(index, {}, part.reason)
            elif part.text or self.body.logprobs:
                yield self._chunk(index, {"content": part.text}, tokens=[part])
        used = usage(self.service, self.choices)
        if self.body.tells_usage:
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
        more |= chunk_usage(self.body, self.choices)
        return {**self.frame, "object": "chat.completion.chunk", "choices": [choice], **more}

    def _logprobs(self, tokens: Sequence[Token], first: int = 0) -> ChatLogprobs | None:
        """Return the tokens' log-probabilities; `first` is the number of the first one in its answer."""
        if not self.body.logprobs:
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
