"""One request's answers are read as one stream, and sent as events or as one body.

A client that disconnects, and a time limit that passes, cancel the request's sequences in the engine.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from ...errors import SoftPromptError
from ..request import Busy, Finished, Stopped, Token
from .choices import Choice
from .errors import ApiError, crashed, from_product
from .protocols import AnswerStream
from .requests import SamplingFields
from .service import Service, Target

Result = TypeVar("Result")
log = logging.getLogger("softprompt.serve")
DONE = b"data: [DONE]\n\n"
#: For the published schema of the routes that stream.
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "The answers, or events."}
}
Parts = AsyncGenerator[tuple[int, Token | Finished], None]


def frame(prefix: str, target: Target) -> dict[str, Any]:
    """Return the fields that a reply and each of its chunks have in common."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": target.name,
        "system_fingerprint": target.fingerprint,
    }


class Reply(Protocol):
    """Writes the choices in a route's own shape: whole after their ends, or in chunks as tokens arrive."""

    def whole(self) -> BaseModel: ...
    def chunks(self, parts: Parts) -> AsyncIterator[dict[str, Any]]: ...


async def answered(
    service: Service, http: HttpRequest, body: SamplingFields, choices: Sequence[Choice], reply: Reply
) -> BaseModel | StreamingResponse:
    """Return events, or one body, as the request asks.

    A stream begins with its first token, so an error before it has a status of its own.
    """
    parts = follow(service, choices)
    try:
        if not body.stream:
            await while_there(http, _run(parts))
            return reply.whole()
        first = await while_there(http, anext(parts))
    except BaseException as error:
        for choice in choices:  # an answer that nobody reads would keep its place for ever
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
    """Yield tokens and ends as they arrive, with the number of their choice. Raises ApiError if one fails."""
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
    """Return the error for an answer that took too long; logged where the engine is another machine."""
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
    """Return the result of `work`; a client that disconnects meanwhile cancels it."""

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


def stream(chunks: AsyncIterator[BaseModel | dict[str, Any]], source: Parts) -> StreamingResponse:
    """Send chunks as server-sent events; a late error is an event too, and [DONE] is the last one."""

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
