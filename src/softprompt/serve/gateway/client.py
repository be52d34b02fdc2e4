"""vLLM over HTTP: an answer as it streams, or a short one whole. Knows nothing of prompts."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any, final

import httpx2

from ...errors import SoftPromptError
from ..request import Busy, InvalidRequest, Stopped

TIMES = httpx2.Timeout(connect=5.0, read=None, write=30.0, pool=None)  # how long an answer may take: the API


class EngineFailed(SoftPromptError):
    """vLLM could not compute an answer."""


class Unreachable(Stopped):
    """vLLM is not there now."""


@final
class Vllm:
    """One address of vLLM, a load balancer's included."""

    def __init__(
        self, url: str, key: str | None = None, *, transport: Any = None, waiting: Any = None
    ) -> None:
        """`transport` (asynchronous) and `waiting` (synchronous) stand for the network in tests."""
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        common: dict[str, Any] = {"base_url": self.url, "headers": headers, "timeout": TIMES}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        self._streams = httpx2.AsyncClient(**common, limits=limits, transport=transport)
        self._waits = httpx2.Client(**common, limits=limits, transport=waiting)

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed completion. Raises InvalidRequest, Busy, Unreachable and EngineFailed."""
        try:
            async with self._streams.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    raise _refused(answer.status_code, await answer.aread())
                async for line in answer.aiter_lines():
                    if not line.startswith("data:") or line == "data: [DONE]":
                        continue
                    chunk = json.loads(line.removeprefix("data:"))
                    if "error" in chunk:
                        raise EngineFailed(_message(chunk))
                    yield chunk
        except httpx2.HTTPError as error:
            raise _unreachable(self.url, error) from None

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """A completion, waited for. Raises as `stream`."""
        return self._answer("POST", "/v1/completions", body)

    def models(self) -> list[dict[str, Any]]:
        """What it serves: `id`, `root` and `max_model_len` of each."""
        return self._answer("GET", "/v1/models")["data"]

    def _answer(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = self._waits.request(method, path, json=body)
        except httpx2.HTTPError as error:
            raise _unreachable(self.url, error) from None
        if answer.status_code != 200:
            raise _refused(answer.status_code, answer.content)
        return answer.json()


def _unreachable(url: str, error: Exception) -> Unreachable:
    why = f"{type(error).__name__}: {error}"
    return Unreachable(f"vLLM at {url} does not answer", why=why, fix="start it, or give another --vllm-url")


def _refused(status: int, content: bytes) -> SoftPromptError:
    try:
        message = _message(json.loads(content))
    except ValueError:
        message = f"HTTP {status}"
    if status in (429, 503):
        return Busy("vLLM is busy", why=message, fix="ask again later", retry_after=1.0)
    if status in (400, 413, 422):
        return InvalidRequest("vLLM cannot answer this request", why=message, fix="change the request")
    return EngineFailed("vLLM failed", why=message, fix="look at its log")


def _message(said: Any) -> str:
    error = said.get("error", said) if isinstance(said, dict) else {}
    return str(error.get("message", "") if isinstance(error, dict) else error)[:500]
