"""One request's answers: its choices go to the engine, and what they say comes back as one stream.

Whoever stops reading (a client that left, a time that ran out) takes the rows out of the engine.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from ...errors import SoftPromptError
from ..request import Busy, Finished, Request, Sampling, Stopped, Token
from .errors import ApiError, crashed, from_product
from .inputs import Input
from .label_answers import check_labelled, chooses, labelled
from .protocols import AnswerStream
from .requests import SamplingFields
from .responses import Usage
from .service import Service, Target

Result = TypeVar("Result")
log = logging.getLogger("softprompt.serve")
DONE = b"data: [DONE]\n\n"
#: Of the routes that answer so, for the published schema.
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "The answers, or events."}
}


@dataclass
class Choice:
    """One answer as it grows."""

    given: Input
    answer: AnswerStream
    tokens: list[Token] = field(default_factory=list)
    end: Finished | None = None

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


def sampling(
    asked: SamplingFields, max_tokens: int, logprobs: int | None, choice: int, known: int
) -> Sampling:
    """The engine's words for it. Choices of one seed have seeds of their own."""
    bias = {int(id): value for id, value in (asked.logit_bias or {}).items()}
    if odd := next((id for id in bias if id >= known), None):
        message = f"Token id {odd} is not of the vocabulary (0 to {known - 1})."
        raise ApiError(400, message, param="logit_bias", code="invalid_token")
    stop = asked.stop or []
    likeliest = asked.top_p == 0  # the token that any probability, however small, keeps
    return Sampling(
        max_tokens=max_tokens,
        temperature=1.0 if asked.temperature is None else float(asked.temperature),
        top_p=1.0 if asked.top_p is None or likeliest else float(asked.top_p),
        top_k=1 if likeliest else max(0, asked.top_k or 0),
        seed=None if asked.seed is None else asked.seed % 2**63 + choice,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        logprobs=logprobs,
        frequency_penalty=float(asked.frequency_penalty or 0),
        presence_penalty=float(asked.presence_penalty or 0),
        repetition_penalty=float(asked.repetition_penalty or 1),
        logit_bias=bias,
        min_tokens=min(asked.min_tokens or 0, max_tokens),
        ignore_eos=bool(asked.ignore_eos),
    )


def check_count(service: Service, inputs: int, n: int | None) -> None:
    """Before any of them is read."""
    held, wanted = service.engine.capacity, inputs * (n or 1)
    most = min(service.limits.choices, held)
    if wanted > most:
        why = ", which is all that the server holds at once (--rows and --queue)" if most == held else ""
        message = f"At most {most} answers a request{why}; this one asks for {wanted}."
        raise ApiError(400, message, param="n" if inputs == 1 else "prompt", code="too_many_choices")


def check_streaming(asked: SamplingFields) -> None:
    """Before anything is looked for."""
    if (asked.tells_usage or asked.tells_progress) and not asked.stream:
        raise ApiError(400, "stream_options go with stream=true.", param="stream_options")


def submit(
    service: Service,
    target: Target,
    asked: SamplingFields,
    inputs: Sequence[Input],
    wanted: int | None,
    otherwise: int,
    logprobs: int | None,
    *,
    echo: bool = False,
) -> list[Choice]:
    """All choices of a request, or none, of `wanted` tokens (None: as `Inputs.room` says).

    `echo`: the input's text comes ahead of the answer and, with `logprobs`, its tokens' too.
    """
    if service.stopping:
        raise from_product(Stopped("stopping"))
    choices: list[Choice] = []
    scale = 1.0 if asked.strength is None else float(asked.strength)
    scoring = echo and logprobs is not None  # of the input, whatever the prompt's task is
    if target.loaded is not None and chooses(target.loaded) and not scoring:
        check_labelled(asked, target, logprobs is not None, echo)
        for given in inputs:
            service.inputs.check_labels(given, target.loaded, scale)
        return [Choice(*one) for one in labelled(service, target, asked, inputs)]
    rooms = [
        service.inputs.room(given, wanted, target.loaded, otherwise, scale, asked.length_field)
        for given in inputs
    ]
    group = object()
    try:
        for given, max_tokens in zip(inputs, rooms, strict=True):
            for _ in range(asked.n or 1):
                how = sampling(asked, max_tokens, logprobs, len(choices), service.inputs.known)
                request = Request(
                    target.prompt, given.ids, how, scoring, scale, given.text, given.goes_on, group
                )
                choices.append(Choice(given, service.engine.submit(request, target.loaded)))
    except BaseException:
        for choice in choices:
            choice.answer.cancel()
        raise
    return choices


Parts = AsyncGenerator[tuple[int, Token | Finished], None]


class Reply(Protocol):
    """The choices in a route's own shape, whole once they are at their ends, or as they come."""

    def whole(self) -> BaseModel: ...
    def chunks(self, parts: Parts) -> AsyncIterator[dict[str, Any]]: ...


async def answered(
    service: Service, http: HttpRequest, asked: SamplingFields, choices: Sequence[Choice], reply: Reply
) -> BaseModel | StreamingResponse:
    """The reply as it was asked for: events, or one body.

    A stream begins with its first token, so what fails before it has a status of its own.
    """
    parts = follow(service, choices)
    try:
        if not asked.stream:
            await while_there(http, _run(parts))
            return reply.whole()
        first = await while_there(http, anext(parts))
    except BaseException as error:
        for choice in choices:  # one that nobody began to read would be in hand for ever
            choice.answer.cancel()
        if isinstance(error, ApiError):
            error.partial = [
                {"index": i, "text": choice.text} for i, choice in enumerate(choices) if choice.tokens
            ]
        raise
    return stream(reply.chunks(_chained(first, parts)), parts)


async def _run(parts: Parts) -> None:
    async for _ in parts:
        pass


async def _chained(first: tuple[int, Token | Finished], rest: Parts) -> Parts:
    yield first
    async for part in rest:
        yield part


async def follow(service: Service, choices: Sequence[Choice]) -> Parts:
    """What the choices say, as it comes, each with its number. Raises ApiError where one fails."""
    queue: asyncio.Queue[tuple[int, Token | Finished | Exception]] = asyncio.Queue()
    clock = asyncio.get_running_loop().time
    begun, first = clock(), True

    async def pump(index: int, answer: AnswerStream) -> None:
        try:
            async for part in answer:
                queue.put_nowait((index, part))
        except Exception as error:
            queue.put_nowait((index, error))

    tasks = [asyncio.create_task(pump(i, choice.answer)) for i, choice in enumerate(choices)]
    left = len(choices)
    try:
        while left:
            try:
                index, part = await asyncio.wait_for(
                    queue.get(), max(0.0, begun + service.limits.seconds - clock())
                )
            except asyncio.TimeoutError:
                raise too_long(service) from None
            if isinstance(part, SoftPromptError):
                raise from_product(part)
            if isinstance(part, Exception):
                raise part
            if first:
                service.metrics.first_token.observe(clock() - begun)
                first = False
            if isinstance(part, Finished):
                _raise_failed(part)
                choices[index].end = part
                left -= 1
            else:
                choices[index].tokens.append(part)
            yield index, part
    finally:
        for choice, task in zip(choices, tasks, strict=True):
            choice.answer.cancel()
            task.cancel()


def too_long(service: Service) -> ApiError:
    """Of an answer that the engine did not give in time; logged where the engine is another machine."""
    message = f"The answer took longer than {service.limits.seconds:g} seconds."
    if service.engine.where:
        message = f"{service.engine.where} did not answer in time. {message}"
        log.error("the engine failed on a request: %s", message)
    return ApiError(504, message, code="timeout")


def _raise_failed(end: Finished) -> None:
    if isinstance(end.error, (Busy, Stopped)):
        raise from_product(end.error)
    if end.reason == "error":
        why = "" if end.error is None else f": {end.error.what}"
        raise ApiError(500, f"The answer could not be computed{why}.", code="generation_failed")
    if end.reason == "cancelled":
        raise ApiError(499, "The answer was cancelled.", code="cancelled")


async def while_there(http: HttpRequest, work: Awaitable[Result]) -> Result:
    """What `work` gives; a client that leaves meanwhile ends it."""

    async def gone() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    working, watch = asyncio.ensure_future(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "The client left.", code="client_left")
        return await working
    finally:
        for task in (working, watch):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


def usage(service: Service, choices: Sequence[Choice], dropped: bool = False) -> Usage:
    """Tokens of the request at its end, which are counted too."""
    used = _used(choices, dropped)
    service.metrics.count(used.prompt_tokens, used.completion_tokens, used.prompt_vectors)
    return used


def usage_so_far(choices: Sequence[Choice], dropped: bool = False) -> dict[str, int]:
    """The same while it runs, without the vectors, which are known at the end."""
    return _used(choices, dropped).model_dump(exclude={"prompt_vectors"})


def _used(choices: Sequence[Choice], dropped: bool) -> Usage:
    """An input counts once, however many choices it has."""
    inputs = {id(choice.given): choice for choice in choices}.values()
    counts = [len(choice.tokens) if choice.end is None else choice.end.output_tokens for choice in choices]
    prompt, said = sum(len(choice.given.ids) for choice in inputs), 0 if dropped else sum(counts)
    vectors = sum(choice.end.prompt_vectors for choice in inputs if choice.end is not None)
    return Usage(
        prompt_tokens=prompt, completion_tokens=said, total_tokens=prompt + said, prompt_vectors=vectors
    )


def stream(chunks: AsyncIterator[BaseModel | dict[str, Any]], source: Parts) -> StreamingResponse:
    """Server-sent events of `source`; an error after the first of them is one too, and [DONE] the last."""

    async def events() -> AsyncIterator[bytes]:
        try:
            async for part in chunks:
                yield _event(part.model_dump() if isinstance(part, BaseModel) else part)
        except ApiError as error:
            yield _event(error.body())
        except SoftPromptError as error:
            yield _event(from_product(error).body())
        except Exception as error:
            yield _event(crashed(error).body())
        finally:
            with suppress(Exception):
                await source.aclose()
        yield DONE

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def now() -> int:
    return int(time.time())
