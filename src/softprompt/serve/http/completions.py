"""/v1/completions: a text goes on. The text is read as it is; a `row` goes through the prompt's template."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from ..request import Finished, Token
from .errors import ApiError
from .inputs import Input
from .keys import Key
from .requests import CompletionRequest
from .responses import Completion, CompletionChoice, CompletionLogprobs, Usage
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
    # clients whose type of it has no null send an empty text beside a row
    prompt = None if asked.row is not None and asked.prompt == "" else asked.prompt
    if (prompt is None) == (asked.row is None):
        raise ApiError(400, "Send either `prompt` or `row`.", param="prompt")
    if asked.best_of not in (None, asked.n or 1):
        message = "best_of: not supported: as many answers are computed as are given, n."
        raise ApiError(400, message, param="best_of", code="unsupported_parameter")
    if asked.max_tokens == 0 and not asked.echo:
        raise ApiError(400, "max_tokens=0 makes sense with echo only.", param="max_tokens")
    check_streaming(asked)


def _begin(service: Service, asked: CompletionRequest, key: Key) -> tuple[Target, list[Choice]]:
    target = service.target(asked.model, key)
    inputs, echo = _inputs(service, asked, target), bool(asked.echo)
    if echo:  # here, for it may tokenize, which blocks
        answered, scored = asked.max_tokens != 0, asked.logprobs is not None
        inputs = [service.inputs.echoed(given, answered, scored) for given in inputs]
    return target, submit(service, target, asked, inputs, asked.max_tokens, USUAL, asked.logprobs, echo=echo)


def _inputs(service: Service, asked: CompletionRequest, target: Target) -> list[Input]:
    if asked.row is not None:
        check_count(service, 1, asked.n)
        return [service.inputs.row(target.loaded, asked.row, asked.max_tokens)]
    prompts: Any = asked.prompt
    if isinstance(prompts, str) or isinstance(prompts[0], int):
        prompts = [prompts]
    check_count(service, len(prompts), asked.n)
    return [service.inputs.text(prompt, target.loaded) for prompt in prompts]


class Scored(NamedTuple):
    """One token as log-probabilities name it."""

    name: str
    logprob: float | None
    top: dict[str, float] | None
    offset: int  # of its place in the text


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
        self.offsets = [0] * len(choices)  # of the next token in its choice's text
        self.begins = [not choice.given.goes_on for choice in choices]  # the answer, with its next token

    def whole(self) -> Completion:
        said = []
        for index, choice in enumerate(self.choices):
            text, scored = self._echo(index)
            if not self.scoring:
                text, scored = text + choice.text, scored + self._scored(index, choice.tokens)
            said.append(self._choice(index, text, scored, choice.end))
        used = usage(self.service, self.choices, self.scoring)
        return self._frame(said, used, softprompt=self.choices[0].given.reading)

    async def chunks(self, parts: Parts) -> AsyncIterator[dict[str, Any]]:
        begun: set[int] = set()
        async for index, part in parts:
            if index not in begun:
                begun.add(index)
                if self.asked.echo:
                    yield self._chunk(self._choice(index, *self._echo(index), None))
            if isinstance(part, Finished):
                yield self._chunk(self._choice(index, "", [], part))
            elif not self.scoring and (part.text or self.asked.logprobs is not None):
                yield self._chunk(self._choice(index, part.text, self._scored(index, [part]), None))
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
        self, index: int, text: str, scored: Sequence[Scored], end: Finished | None
    ) -> CompletionChoice:
        reason = None if end is None else "length" if self.scoring else end.reason
        logprobs = CompletionLogprobs(
            tokens=[one.name for one in scored],
            token_logprobs=[one.logprob for one in scored],
            top_logprobs=[one.top for one in scored],
            text_offset=[one.offset for one in scored],
        )
        return CompletionChoice(
            index=index,
            text=text,
            logprobs=None if self.asked.logprobs is None else logprobs,
            finish_reason=reason,  # type: ignore[arg-type]
        )

    def _echo(self, index: int) -> tuple[str, list[Scored]]:
        """The input's text and its tokens, as far as they are asked for."""
        if not self.asked.echo:
            return "", []
        choice, inputs = self.choices[index], self.service.inputs
        text, lengths = choice.given.echo, choice.given.echo_lengths
        if self.asked.logprobs is None:
            return text, []
        scored, begins = [], True
        for token, length in zip(choice.answer.echoed, lengths, strict=True):
            scored.append(self._one(index, token, length, begins))
            begins = begins and inputs.bytes(token.id) is None  # control tokens ahead of the text
        return text, scored

    def _scored(self, index: int, tokens: Sequence[Token]) -> list[Scored]:
        """Tokens of the answer, those that come next."""
        if self.asked.logprobs is None:
            return []
        found = []
        for token in tokens:
            found.append(self._one(index, token, token.completes, self.begins[index]))
            self.begins[index] = False
        return found

    def _one(self, index: int, token: Token, length: int, begins: bool) -> Scored:
        inputs, offset = self.service.inputs, self.offsets[index]
        self.offsets[index] += length
        top = None if token.logprob is None else inputs.names(token, begins)
        return Scored(inputs.name(token, begins), token.logprob, top, offset)
