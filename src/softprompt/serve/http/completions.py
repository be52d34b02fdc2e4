"""/v1/completions continues a text as it is, or answers a `row` through the prompt's template."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from ..request import Finished, Token
from .choices import Choice, check_count, check_streaming, chunk_usage, submit, usage
from .echo import echoed
from .errors import ApiError
from .inputs import Input
from .keys import Key
from .requests import CompletionRequest
from .responses import Completion, CompletionChoice, CompletionLogprobs, Usage
from .service import Service, Target
from .streaming import RESPONSES, Parts, answered, frame

DEFAULT_MAX_TOKENS = 16  # OpenAI's, where neither the request nor a prompt sets it


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/completions", response_model=Completion, responses=RESPONSES)
    async def completions(body: CompletionRequest, http: Request) -> Any:
        _check(body)
        target, choices = await run_in_threadpool(partial(_begin, service, body, http.state.key))
        return await answered(service, http, body, choices, _Reply(service, body, target, choices))

    return router


def _check(body: CompletionRequest) -> None:
    # clients that cannot send null send an empty text beside a row
    prompt = None if body.row is not None and body.prompt == "" else body.prompt
    if (prompt is None) == (body.row is None):
        raise ApiError(400, "Send either `prompt` or `row`.", param="prompt")
    if body.best_of not in (None, body.n or 1):
        message = "best_of is not supported: n answers are computed, and all of them are sent."
        raise ApiError(400, message, param="best_of", code="unsupported_parameter")
    if body.max_tokens == 0 and not body.echo:
        raise ApiError(400, "max_tokens=0 needs echo=true.", param="max_tokens")
    check_streaming(body)


def _begin(service: Service, body: CompletionRequest, key: Key) -> tuple[Target, list[Choice]]:
    target = service.target(body.model, key)
    inputs, echo = _inputs(service, body, target), bool(body.echo)
    if echo:  # here, because it may tokenize, which blocks
        answered, scored = body.max_tokens != 0, body.logprobs is not None
        inputs = [echoed(service.inputs, given, answered, scored) for given in inputs]
    return target, submit(
        service, target, body, inputs, body.max_tokens, DEFAULT_MAX_TOKENS, body.logprobs, echo=echo
    )


def _inputs(service: Service, body: CompletionRequest, target: Target) -> list[Input]:
    if body.row is not None:
        check_count(service, 1, body.n)
        return [service.inputs.row(target.loaded, body.row, body.max_tokens)]
    prompts: Any = body.prompt
    if isinstance(prompts, str) or isinstance(prompts[0], int):
        prompts = [prompts]
    check_count(service, len(prompts), body.n)
    return [service.inputs.text(prompt, target.loaded) for prompt in prompts]


class Scored(NamedTuple):
    """A token with its log-probabilities, by the names that clients see."""

    name: str
    logprob: float | None
    top: dict[str, float] | None
    offset: int  # of its place in the text


class _Reply:
    def __init__(
        self, service: Service, body: CompletionRequest, target: Target, choices: Sequence[Choice]
    ) -> None:
        self.service, self.body, self.choices = service, body, choices
        self.scoring = body.max_tokens == 0
        self.frame = frame("cmpl", target)
        self.offsets = [0] * len(choices)  # of the next token in its choice's text
        self.begins = [not choice.given.continues for choice in choices]  # the next token begins the text

    def whole(self) -> Completion:
        written = []
        for index, choice in enumerate(self.choices):
            text, scored = self._echo(index)
            if not self.scoring:
                text, scored = text + choice.text, scored + self._scored(index, choice.tokens)
            written.append(self._choice(index, text, scored, choice.end))
        used = usage(self.service, self.choices, self.scoring)
        return self._frame(written, used, softprompt=self.choices[0].given.reading)

    async def chunks(self, parts: Parts) -> AsyncIterator[dict[str, Any]]:
        begun: set[int] = set()
        async for index, part in parts:
            if index not in begun:
                begun.add(index)
                if self.body.echo:
                    yield self._chunk(self._choice(index, *self._echo(index), None))
            if isinstance(part, Finished):
                yield self._chunk(self._choice(index, "", [], part))
            elif not self.scoring and (part.text or self.body.logprobs is not None):
                yield self._chunk(self._choice(index, part.text, self._scored(index, [part]), None))
        used = usage(self.service, self.choices, self.scoring)
        if self.body.tells_usage:
            yield self._frame([], used).model_dump(exclude={"softprompt"})

    def _chunk(self, choice: CompletionChoice) -> dict[str, Any]:
        chunk = self._frame([choice], None).model_dump(exclude={"softprompt", "usage"})
        return chunk | chunk_usage(self.body, self.choices, self.scoring)

    def _frame(self, choices: list[CompletionChoice], used: Usage | None, **more: Any) -> Completion:
        return Completion(**self.frame, choices=choices, usage=used, **more)

    def _choice(
        self, index: int, text: str, scored: Sequence[Scored], end: Finished | None
    ) -> CompletionChoice:
        reason = None if end is None else "length" if self.scoring else end.reason
        logprobs = CompletionLogprobs(
            tokens=[token.name for token in scored],
            token_logprobs=[token.logprob for token in scored],
            top_logprobs=[token.top for token in scored],
            text_offset=[token.offset for token in scored],
        )
        return CompletionChoice(
            index=index,
            text=text,
            logprobs=None if self.body.logprobs is None else logprobs,
            finish_reason=reason,  # type: ignore[arg-type]
        )

    def _echo(self, index: int) -> tuple[str, list[Scored]]:
        if not self.body.echo:
            return "", []
        choice, inputs = self.choices[index], self.service.inputs
        text, lengths = choice.given.echo, choice.given.echo_lengths
        if self.body.logprobs is None:
            return text, []
        scored, begins = [], True
        for token, length in zip(choice.answer.echoed, lengths, strict=True):
            scored.append(self._one(index, token, length, begins))
            begins = begins and inputs.bytes(token.id) is None  # control tokens ahead of the text
        return text, scored

    def _scored(self, index: int, tokens: Sequence[Token]) -> list[Scored]:
        if self.body.logprobs is None:
            return []
        scored = []
        for token in tokens:
            scored.append(self._one(index, token, token.completes, self.begins[index]))
            self.begins[index] = False
        return scored

    def _one(self, index: int, token: Token, length: int, begins: bool) -> Scored:
        inputs, offset = self.service.inputs, self.offsets[index]
        self.offsets[index] += length
        top = None if token.logprob is None else inputs.names(token, begins)
        return Scored(inputs.name(token, begins), token.logprob, top, offset)
