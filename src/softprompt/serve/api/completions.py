"""/v1/completions: a text goes on. The text is read as it is; a `row` goes through the prompt's template."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from ..request import Finished, Token
from .answers import (
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
from .errors import ApiError
from .inputs import Input
from .keys import Key
from .replies import Completion, CompletionChoice, CompletionLogprobs, Usage
from .schemas import CompletionRequest
from .service import Service, Target

USUAL = 16  # tokens, as OpenAI has it, where neither the request nor a prompt says


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/completions",
        response_model=Completion,
        responses=RESPONSES,
    )
    async def completions(asked: CompletionRequest, http: Request) -> Any:
        _check(asked)
        target, choices = await run_in_threadpool(partial(_begin, service, asked, http.state.key))
        return await answered(service, http, asked, choices, _Reply(service, asked, target, choices))

    return router


def _check(asked: CompletionRequest) -> None:
    if (asked.prompt is None) == (asked.row is None):
        raise ApiError(400, "Send either `prompt` or `row`.", param="prompt")
    if asked.best_of not in (None, asked.n or 1):
        message = "best_of: not supported: as many answers are computed as are given, n."
        raise ApiError(400, message, param="best_of", code="unsupported_parameter")
    if asked.max_tokens == 0 and not asked.echo:
        raise ApiError(400, "max_tokens=0 makes sense with echo only.", param="max_tokens")
    check_streaming(asked)


def _begin(service: Service, asked: CompletionRequest, key: Key) -> tuple[Target, list[Choice]]:
    target = service.target(asked.model, key)
    inputs = _inputs(service, asked, target)
    # a token that nobody asked for is the price of scoring an input: it is dropped
    wanted = max(1, asked.max_tokens) if asked.max_tokens is not None else None
    rooms = [(one, service.inputs.room(one, wanted, target.loaded, USUAL)) for one in inputs]
    echo = bool(asked.echo) and asked.logprobs is not None
    return target, submit(service, target, asked, rooms, asked.logprobs, echo=echo)


def _inputs(service: Service, asked: CompletionRequest, target: Target) -> list[Input]:
    if asked.row is not None:
        check_count(service, 1, asked.n)
        return [service.inputs.row(target.loaded, asked.row)]
    prompts: Any = asked.prompt
    if isinstance(prompts, str) or isinstance(prompts[0], int):
        prompts = [prompts]
    check_count(service, len(prompts), asked.n)
    return [service.inputs.text(prompt) for prompt in prompts]


class _Reply:
    """The answers in OpenAI's shape, whole or in pieces."""

    def __init__(
        self, service: Service, asked: CompletionRequest, target: Target, choices: Sequence[Choice]
    ) -> None:
        self.service, self.asked, self.choices = service, asked, choices
        self.scoring = asked.max_tokens == 0
        self.frame = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "created": now(),
            "model": target.name,
            "system_fingerprint": target.fingerprint,
        }
        self.offsets = [0] * len(choices)

    def whole(self) -> Completion:
        said = []
        for index, choice in enumerate(self.choices):
            tokens = [*self._echoed(choice), *([] if self.scoring else choice.tokens)]
            text = self._echo_text(choice) + ("" if self.scoring else choice.text)
            said.append(self._choice(index, text, tokens, choice.end))
        used = usage(self.service, self.choices, self.scoring)
        return self._frame(said, used, softprompt=self.choices[0].given.reading)

    async def chunks(self, parts: Parts) -> AsyncIterator[dict[str, Any]]:
        begun: set[int] = set()
        async for index, part in parts:
            choice = self.choices[index]
            if index not in begun:
                begun.add(index)
                if self.asked.echo:
                    text, tokens = self._echo_text(choice), self._echoed(choice)
                    yield self._chunk(self._choice(index, text, tokens, None))
            if isinstance(part, Finished):
                yield self._chunk(self._choice(index, "", [], part))
            elif not self.scoring and (part.text or self.asked.logprobs is not None):
                yield self._chunk(self._choice(index, part.text, [part], None))
        used = usage(self.service, self.choices, self.scoring)
        if self.asked.tells_usage:
            yield self._frame([], used).model_dump(exclude={"softprompt"})

    def _chunk(self, choice: CompletionChoice) -> dict[str, Any]:
        chunk = self._frame([choice], None).model_dump(exclude={"softprompt", "usage"})
        if self.asked.tells_progress:
            return {**chunk, "usage": usage_so_far(self.choices, self.scoring)}
        return {**chunk, "usage": None} if self.asked.tells_usage else chunk

    def _frame(self, choices: list[CompletionChoice], used: Usage | None, **more: Any) -> Completion:
        return Completion(**self.frame, choices=choices, usage=used, **more)

    def _choice(
        self, index: int, text: str, tokens: Sequence[Token], end: Finished | None
    ) -> CompletionChoice:
        reason = None if end is None else "length" if self.scoring else end.reason
        return CompletionChoice(
            index=index,
            text=text,
            logprobs=None if self.asked.logprobs is None else self._logprobs(index, tokens),
            finish_reason=reason,  # type: ignore[arg-type]
        )

    def _logprobs(self, index: int, tokens: Sequence[Token]) -> CompletionLogprobs:
        piece, offsets = self.service.inputs.piece, []
        for token in tokens:
            offsets.append(self.offsets[index])
            self.offsets[index] += len(token.text)
        return CompletionLogprobs(
            tokens=[piece(token.id) for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[
                None if token.logprob is None else {text: value for _, text, value in token.top}
                for token in tokens
            ],
            text_offset=offsets,
        )

    def _echoed(self, choice: Choice) -> tuple[Token, ...]:
        return choice.answer.echoed if self.asked.echo and self.asked.logprobs is not None else ()

    def _echo_text(self, choice: Choice) -> str:
        return choice.given.text if self.asked.echo else ""
