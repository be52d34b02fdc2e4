"""What surrounds every request: its host and size checked, its time bounded, its end logged and counted.

Plain ASGI, since a body must be bounded before anything reads it. No text of a request is logged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..load import Pace
from . import body_checks
from .errors import ApiError, crashed
from .limits import Limits
from .metrics import Metrics

log = logging.getLogger("softprompt.serve")
SPARE = 30.0  # seconds beyond the limit for a slow reader to take what is ready


class Shell:
    """`hosts`: names by which the server may be called; empty: any.

    On loopback only loopback's names are taken, since any web page can make a browser call 127.0.0.1 by a
    name of its own, and then read the answer.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, hosts: Sequence[str] = ()) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.hosts = frozenset(host.lower() for host in hosts)
        self._begun: list[float] = []  # of each request in hand, when it came
        self._pace = Pace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked, scope = scope["method"], body_checks.tidied(scope)
        sent = _Sent(send, bodiless=asked == "HEAD")
        begun = time.monotonic()
        try:
            await self._guarded(scope, receive, sent)
        except ApiError as error:
            await sent.error(error, scope, receive)
        except Exception as error:
            await sent.error(crashed(error), scope, receive)
        finally:
            self._note(asked, scope, sent.status, time.monotonic() - begun)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_host(scope)
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        begun, held = time.monotonic(), len(self._begun)
        if held >= self.limits.requests:
            message = f"The server has {held} requests in hand."
            wait = self._pace.wait(held, held, begun - min(self._begun, default=begun))
            raise ApiError(429, message, code="too_many_requests", retry_after=wait)
        self._begun.append(begun)
        try:
            body = await self._body(scope, receive)
            body_checks.check_body(scope, body)
            call = self.app(scope, _replayed(body, receive), send)
            await asyncio.wait_for(call, self.limits.seconds + SPARE)
        except asyncio.TimeoutError:
            raise ApiError(504, "The request took too long.", code="timeout") from None
        finally:
            self._begun.remove(begun)
            self._pace.ended(time.monotonic() - begun)

    def _check_host(self, scope: Scope) -> None:
        if not self.hosts:
            return
        given = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
        host = given.rpartition(":")[0] if given.rpartition(":")[2].isdigit() else given
        if host.lower() not in self.hosts:
            message = "The server is not to be called by this name (--allowed-host adds one)."
            raise ApiError(403, message, code="wrong_host")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        most = self.limits.body_bytes
        too_large = ApiError(413, f"A request has at most {most} bytes.", code="request_too_large")
        said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if said.isdigit() and int(said) > most:
            raise too_large
        body = bytearray()
        end = time.monotonic() + self.limits.body_seconds
        while True:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                message_408 = f"The body did not arrive in {self.limits.body_seconds:g} seconds."
                raise ApiError(408, message_408, code="timeout") from None
            if message["type"] == "http.disconnect":
                raise ApiError(499, "The client left.", code="client_left")
            body += message.get("body", b"")
            if len(body) > most:
                raise too_large
            if not message.get("more_body"):
                return bytes(body)

    def _note(self, method: str, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None)
        endpoint = route or "other"
        self.metrics.seen(endpoint, status, seconds)
        key = scope.get("state", {}).get("key")
        who = "-" if key is None else key.name
        log.info("%s %s %d %.0f ms key=%s", method, endpoint, status, seconds * 1000, who)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once, then whatever comes after it (a client that leaves)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


class _Sent:
    """`send`, remembering the status; 499 where nothing was sent before the client left.

    `bodiless`: the head alone is sent.
    """

    def __init__(self, send: Send, bodiless: bool = False) -> None:
        self._send, self.begun, self.status, self.bodiless = send, False, 499, bodiless

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
        elif self.bodiless:
            message = {**message, "body": b""}
        await self._send(message)

    async def error(self, error: ApiError, scope: Scope, receive: Receive) -> None:
        """The error as the answer, where none has begun."""
        if not self.begun:
            await error.response()(scope, receive, self)
