"""Each client sends one request after the other for a while, and records the results.

Load generators count status codes; these also read the answers, whole or in pieces, to their last token.
This file knows nothing of the engine.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

MOST = 10**6  # requests of one run, whatever its time
PATIENCE = 120.0  # seconds without a byte from the server
LEAVING = 0.02  # of the clients' requests: they hang up at the first token
WHOLE = 0.25  # of the requests: answered in one piece


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests exactly `tokens` tokens, the likeliest; `alone` is the right answer, if it is known."""

    model: str
    ids: tuple[int, ...]
    tokens: int
    alone: str | None = None


@dataclass(slots=True)
class Seen:
    """Counts the results of all clients together."""

    whole: list[float] = field(default_factory=list)  # seconds of each answer
    first: list[float] = field(default_factory=list)  # seconds to the first text of streamed answers
    tokens: int = 0
    checked: int = 0
    left: int = 0
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def begun(self) -> int:
        return len(self.whole) + self.left + len(self.errors)


def run(url: str, clients: int, seconds: float, next_one: Callable[[], Asked], seed: int = 0) -> Seen:
    """Run the clients at once, each with its own connection; they begin requests for `seconds` seconds."""
    return asyncio.run(_run(url, clients, seconds, next_one, random.Random(seed)))


async def _run(
    url: str, clients: int, seconds: float, next_one: Callable[[], Asked], draw: random.Random
) -> Seen:
    seen, started = Seen(), time.perf_counter()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits, trust_env=False) as http:

        async def client() -> None:
            while time.perf_counter() - started < seconds and seen.begun < MOST:
                try:
                    await _ask(http, next_one(), draw, seen)
                except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
                    seen.errors.append(f"{type(error).__name__}: {error}")
                    await asyncio.sleep(0.1)  # a server that is down does not get ten thousand requests

        await asyncio.gather(*(client() for _ in range(clients)))
    seen.seconds = time.perf_counter() - started
    return seen


async def _ask(http: httpx.AsyncClient, request: Asked, draw: random.Random, seen: Seen) -> None:
    """Send a request and record its result. Raises ValueError if the reply is not an answer."""
    body: dict[str, Any] = {"model": request.model, "prompt": request.ids, "max_tokens": request.tokens}
    body |= {"temperature": 0, "ignore_eos": True}
    leaving, whole = draw.random() < LEAVING, draw.random() < WHOLE
    started = time.perf_counter()
    if whole and not leaving:
        reply = await http.post("/v1/completions", json=body)
        _check_status(reply)
        answer = _Answer()
        answer.add(reply.json())
    else:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        async with http.stream("POST", "/v1/completions", json=body) as reply:
            if reply.status_code != 200:
                await reply.aread()
            _check_status(reply)
            answer = await _streamed(reply, leaving)
    if leaving:
        seen.left += 1
        return
    took = time.perf_counter() - started
    if (answer.reason, answer.read, answer.written) != ("length", len(request.ids), request.tokens):
        raise ValueError(f"{answer}, of {len(request.ids)} + {request.tokens} tokens")
    seen.whole.append(took)
    seen.tokens += request.tokens
    if answer.first is not None:
        seen.first.append(answer.first - started)
    if request.alone is not None:
        seen.checked += 1
        if answer.text != request.alone:
            seen.wrong.append(f"{request.model}: {answer.text!r}, alone {request.alone!r}")


@dataclass(slots=True)
class _Answer:
    text: str = ""
    reason: str | None = None
    read: int = -1  # tokens, as the server reports
    written: int = -1
    first: float | None = None  # when the first text of a stream came

    def add(self, event: dict[str, Any], at: float | None = None) -> None:
        """Add a part of the answer, or the whole."""
        for choice in event["choices"]:
            if choice["text"] and self.first is None:
                self.first = at
            self.text += choice["text"]
            self.reason = choice["finish_reason"] or self.reason
        if used := event.get("usage"):
            self.read, self.written = used["prompt_tokens"], used["completion_tokens"]


async def _streamed(reply: httpx.Response, leaving: bool) -> _Answer:
    """Read the whole stream, or its first part if the client is leaving."""
    answer = _Answer()
    async for line in reply.aiter_lines():
        if line == "data: [DONE]":
            return answer
        if not line.startswith("data: "):
            continue
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:
            raise ValueError(f"in the stream: {event['error']}")
        answer.add(event, time.perf_counter())
        if leaving:
            return answer
    raise ValueError("the stream ended without [DONE]")


def _check_status(reply: httpx.Response) -> None:
    if reply.status_code != 200:
        raise ValueError(f"{reply.status_code} {reply.text[:200]}")
