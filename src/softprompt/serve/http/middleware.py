"""Every request passes here: its host and size are checked, its time bounded, its end logged and counted.

This is plain ASGI, since a body must be bounded before anything reads it. No text of a request is logged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import asdict

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..load import Pace
from . import body_checks, request_record
from .errors import ApiError, crashed
from .limits import Limits
from .metrics import Metrics
from .request_record import RequestRecord
from .tracing import NoTracing, Tracing

log = logging.getLogger("softprompt.serve")
SPARE = 30.0  # seconds beyond the limit for a slow reader to take what is ready


class Middleware:
    """Wraps the application; `hosts` are the names, in small letters, by which it may be called (none: any).

    On loopback only loopback's names are allowed, since any web page can make a browser call 127.0.0.1 by a
    name of its own, and then read the answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: Metrics,
        hosts: Collection[str] = (),
        tracing: Tracing | None = None,
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.hosts = hosts  # a set of the application, which may change
        self.tracing: Tracing = tracing or NoTracing()
        self._begun: list[float] = []  # when each running request arrived
        self._pace = Pace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, scope = scope["method"], body_checks.tidied(scope)
        record = request_record.begin(body_checks.header(scope, request_record.HEADER))
        sent = _Sent(send, record.id, bodiless=method == "HEAD")
        begun = time.monotonic()
        with self.tracing.span(method, scope) as span:
            try:
                await self._guarded(scope, receive, sent)
            except ApiError as error:
                await sent.error(error, scope, receive)
            except Exception as error:
                await sent.error(crashed(error), scope, receive)
            finally:
                endpoint = getattr(scope.get("route"), "path", None) or "other"
                self.tracing.finish(span, method, endpoint, sent.status, record)
                self._note(method, endpoint, scope, sent.status, time.monotonic() - begun, record)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_host(scope)
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        begun, held = time.monotonic(), len(self._begun)
        if held >= self.limits.requests:
            message = f"The server is working on {held} requests."
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
        host, _, port = (sent := body_checks.header(scope, b"host")).rpartition(":")
        host = host if port.isdigit() else sent
        if host.lower() not in self.hosts:
            message = "The server does not answer to this host name (--allowed-host adds one)."
            raise ApiError(403, message, code="wrong_host")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        most = self.limits.body_bytes
        too_large = ApiError(413, f"A request has at most {most} bytes.", code="request_too_large")
        length = body_checks.header(scope, b"content-length")
        if length.isdecimal() and int(length) > most:
            raise too_large
        body = bytearray()
        end = time.monotonic() + self.limits.body_seconds
        while True:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                late = f"The body did not arrive in {self.limits.body_seconds:g} seconds."
                raise ApiError(408, late, code="timeout") from None
            if message["type"] == "http.disconnect":
                raise ApiError(499, "The client left.", code="client_left")
            body += message.get("body", b"")
            if len(body) > most:
                raise too_large
            if not message.get("more_body"):
                return bytes(body)

    def _note(
        self, method: str, endpoint: str, scope: Scope, status: int, seconds: float, record: RequestRecord
    ) -> None:
        self.metrics.seen(endpoint, status, seconds)
        key = scope.get("state", {}).get("key")
        name = "-" if key is None else key.name
        fields = {"method": method, "endpoint": endpoint, "status": status, "seconds": round(seconds, 4)}
        fields |= {**asdict(record), "key": name}
        message = "%s %s %d %.0f ms key=%s"
        log.info(message, method, endpoint, status, seconds * 1000, name, extra={"request": fields})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give the body once, then later messages (a client that disconnects)."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


class _Sent:
    """Sends messages and remembers the status; it stays 499 if the client leaves before anything is sent.

    The head gets the request's id. `bodiless`: only the head is sent.
    """

    def __init__(self, send: Send, id: str, bodiless: bool = False) -> None:
        self._send, self.begun, self.status, self.bodiless = send, False, 499, bodiless
        self._header = (request_record.HEADER, id.encode("ascii"))

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            message = {**message, "headers": [*message.get("headers", ()), self._header]}
        elif self.bodiless:
            message = {**message, "body": b""}
        await self._send(message)

    async def error(self, error: ApiError, scope: Scope, receive: Receive) -> None:
        if not self.begun:
            await error.response()(scope, receive, self)
