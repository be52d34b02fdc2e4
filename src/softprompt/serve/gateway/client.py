"""vLLM is called over HTTP for a streamed answer, or for a short one at once. Nothing here knows prompts.

`faults` makes the errors: InvalidRequest where the request is wrong, EngineBusy, EngineAway and EngineFailed
where vLLM fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any, final

import httpx2

from ...errors import SoftPromptError
from . import faults
from .sse import events

TIMES = httpx2.Timeout(connect=5.0, read=None, write=30.0, pool=None)  # the API limits the time of an answer
PROBE = 2.0  # seconds for vLLM to answer a probe
ERROR_BYTES, ERROR_SECONDS = 2**16, 5.0  # read of an error's body
NETWORK = (httpx2.HTTPError, httpx2.InvalidURL, OSError)


@final
class Vllm:
    """Calls one address of vLLM, or of a load balancer."""

    def __init__(self, url: str, key: str | None = None, *, transport: Any = None) -> None:
        """Prepare calls to vLLM at `url`; `key` is the API key that vLLM was started with, if any.

        Tests give an asynchronous `transport` that replaces the network.
        """
        self.url, self.key = url.rstrip("/").removesuffix("/v1"), (key or "").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            raise SoftPromptError(
                "vLLM's key cannot be sent",
                why="it has a character that HTTP headers do not allow",
                fix="set SOFTPROMPT_VLLM_KEY to the key that vLLM was started with",
            )
        self._common: dict[str, Any] = {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {self.key}"} if self.key else {},
        }
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        try:
            self._http = httpx2.AsyncClient(**self._common, timeout=TIMES, limits=limits, transport=transport)
        except NETWORK as error:
            raise faults.lost(faults.named(self.url), error, midway=False) from None

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        engine, begun = faults.named(self.url, body.get("model")), False
        try:
            async with self._http.stream("POST", "/v1/completions", json=body) as answer:
                begun = True
                if answer.status_code != 200:
                    raise self._refused(engine, answer, await _some(answer))
                kind = answer.headers.get("content-type", "")
                if "html" in kind or "json" in kind:
                    raise _no_stream(engine, kind, await _some(answer))
                async for data in events(answer.aiter_bytes()):
                    if data != "[DONE]":
                        yield _chunk(engine, data)
        except NETWORK as error:
            raise faults.lost(engine, error, midway=begun) from None
        except UnicodeDecodeError:
            raise faults.unreadable(engine, "it is not UTF-8") from None

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a completion that is not streamed."""
        engine = faults.named(self.url, body.get("model"))
        try:
            answer = await self._http.post("/v1/completions", json=body)
        except NETWORK as error:
            raise faults.lost(engine, error, midway=False) from None
        return self._read(engine, answer)

    def models(self) -> list[dict[str, Any]]:
        """Return `id`, `root` and `max_model_len` of each model that it serves. Blocks the caller."""
        engine = faults.named(self.url)
        try:
            with httpx2.Client(**self._common, timeout=PROBE) as http:
                return self._models(engine, http.get("/v1/models"))
        except NETWORK as error:
            raise faults.lost(engine, error, midway=False) from None

    async def problem(self, model: str) -> SoftPromptError | None:
        """Return why it does not answer for `model` now, or None."""
        engine = faults.named(self.url, model)
        try:
            health = await self._http.get("/health", timeout=PROBE)
            if health.status_code >= 500:
                return self._refused(engine, health, health.content)
            listed = self._models(engine, await self._http.get("/v1/models", timeout=PROBE))
        except NETWORK as error:
            return faults.lost(engine, error, midway=False)
        except SoftPromptError as error:
            return error
        names = [str(entry["id"]) for entry in listed]
        return None if model in names else faults.renamed(engine, names)

    def _models(self, engine: str, answer: httpx2.Response) -> list[dict[str, Any]]:
        listed = self._read(engine, answer).get("data")
        known = isinstance(listed, list) and all(
            isinstance(entry, dict) and entry.get("id") for entry in listed
        )
        if not known or not listed:
            raise faults.unreadable(engine, "its list of models is empty or missing")
        return listed

    def _read(self, engine: str, answer: httpx2.Response) -> dict[str, Any]:
        if answer.status_code != 200:
            raise self._refused(engine, answer, answer.content)
        return _chunk(engine, answer.content)

    def _refused(self, engine: str, answer: httpx2.Response, content: bytes) -> SoftPromptError:
        if self.key:  # some servers repeat an unknown key in their message
            content = content.replace(self.key.encode(), b"***")
        return faults.refused(engine, answer.status_code, answer.headers, content)


def _no_stream(engine: str, kind: str, content: bytes) -> SoftPromptError:
    if "json" in kind:
        _chunk(engine, content)  # an error is raised
        return faults.unreadable(engine, "it is not streamed")
    return faults.unreadable(engine, f"it is {kind}: {faults.message_of(content)}")


def _chunk(engine: str, data: str | bytes) -> dict[str, Any]:
    """Parse an answer, or a part of one; raise an error that is sent in its place."""
    try:
        chunk = json.loads(data)
    except ValueError:
        raise faults.unreadable(engine, "it is no JSON, or is cut off") from None
    if not isinstance(chunk, dict):
        raise faults.unreadable(engine, "it is no JSON object")
    if chunk.get("error") or chunk.get("object") == "error":
        raise faults.refused_midway(engine, chunk)
    return chunk


async def _some(answer: httpx2.Response) -> bytes:
    """Read the beginning of an error's body, as much as arrives in a short time."""
    content = bytearray()

    async def read() -> None:
        async for piece in answer.aiter_bytes():
            content.extend(piece)
            if len(content) >= ERROR_BYTES:
                return

    with contextlib.suppress(asyncio.TimeoutError, *NETWORK):
        await asyncio.wait_for(read(), ERROR_SECONDS)
    return bytes(content)
