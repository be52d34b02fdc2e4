"""Errors have OpenAI's statuses and bodies.

`{"error": {"message", "type", "param", "code"}}`; 429 and 503 say in Retry-After when to ask again.
A prompt that a key may not use gets the same answer as one that does not exist.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Collection
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ...data.capacity import TooLong
from ...errors import SoftPromptError
from ..failures import line
from ..request import (
    BrokenPrompt,
    Busy,
    EngineAway,
    EngineBusy,
    EngineFailed,
    InvalidRequest,
    ModelFailed,
    Stopped,
    TooLarge,
)
from .validation_errors import sentence

log = logging.getLogger("softprompt.serve")

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
CODES = {400: "invalid_json", 405: "method_not_allowed", 404: "not_found", 413: "request_too_large"}


CODES_OF_MISTAKES = {
    "missing": "missing_parameter",
    "extra_forbidden": "unknown_parameter",
    "unsupported": "unsupported_parameter",
}


class PartialText(BaseModel):
    """The text that one answer had before the request failed."""

    index: int
    text: str


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None
    partial: list[PartialText] | None = None  # only where an answer had begun


class ErrorReply(BaseModel):
    error: ErrorBody


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after
        self.partial: list[dict[str, Any]] = []  # as PartialText

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        body = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": body | ({"partial": self.partial} if self.partial else {})}

    def response(self) -> JSONResponse:
        headers = (
            {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        )
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def unknown_model(name: str) -> ApiError:
    """Return the same error whether the prompt does not exist or the key may not use it."""
    shown = name if len(name) <= 200 else name[:200] + "…"
    return ApiError(404, f"The model `{shown}` does not exist.", param="model", code="model_not_found")


def from_product(error: SoftPromptError) -> ApiError:
    """Turn the library's own error into one for clients, without paths and names of other tenants."""
    if isinstance(error, (EngineFailed, EngineBusy)):
        return _of_engine(error)
    if isinstance(error, Busy):
        message = f"The server is busy: {error.line}"
        return ApiError(429, message, code="queue_full", retry_after=error.retry_after)
    if isinstance(error, Stopped):
        return ApiError(503, "The server is shutting down.", code="shutting_down", retry_after=5)
    if isinstance(error, BrokenPrompt):
        log.error("a prompt cannot be served: %s", line(error))
        message = "The prompt's files are damaged, or were made for another base model."
        return ApiError(422, message, param="model", code="prompt_broken")
    if isinstance(error, ModelFailed):
        return ApiError(500, f"The answer could not be computed: {error.what}.", code="generation_failed")
    if isinstance(error, TooLong):
        return ApiError(400, f"{error.what}.", code="context_length_exceeded")
    if isinstance(error, TooLarge):
        return ApiError(413, error.line, code="request_too_large")
    code = error.code if isinstance(error, InvalidRequest) else None
    return ApiError(400, error.line, code=code)


def _of_engine(error: SoftPromptError) -> ApiError:
    """Turn a failure of an engine on another machine into an error, and log it, once a request."""
    log.error("the engine failed on a request: %s", error.line)
    message = error.line
    if isinstance(error, EngineBusy):
        return ApiError(429, message, code="engine_busy", retry_after=error.retry_after)
    if isinstance(error, EngineAway):
        return ApiError(503, message, code="engine_unavailable", retry_after=error.retry_after)
    return ApiError(502, message, code="engine_failed")


def install(app: FastAPI, routes: Collection[str]) -> None:
    """Give every error of the app this form; `routes` are the paths that a 404 may name."""

    @app.exception_handler(ApiError)
    async def _api_error(_: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(SoftPromptError)
    async def _product(_: Request, error: SoftPromptError) -> JSONResponse:
        return from_product(error).response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _from_validation(error).response()

    @app.exception_handler(HTTPException)
    async def _http(http: Request, error: HTTPException) -> JSONResponse:
        message = _of_http(http, error, routes)
        reply = ApiError(error.status_code, message, code=CODES.get(error.status_code)).response()
        reply.headers.update(error.headers or {})
        return reply


def _of_http(http: Request, error: HTTPException, routes: Collection[str]) -> str:
    path = http.scope["path"]
    if error.status_code == 404 or path == "/":  # a base URL without /v1
        return _no_route(path, routes)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return f"{path} does not accept {http.method}: send {allowed}."
    if error.status_code == 400:
        return "The body's JSON cannot be read: it is nested too deeply, or a number has too many digits."
    return str(error.detail)


def _no_route(path: str, routes: Collection[str]) -> str:
    """Return the message for an unknown path; it names the route whose end the path has."""
    served = sorted({route.partition("/{")[0] for route in routes if route.startswith("/v1/")}, key=len)
    shown = path if len(path) <= 100 else path[:100] + "…"
    for route in reversed(served):  # the longest first: one may end as another does
        if f"{route.removeprefix('/v1')}/" in f"{path}/":
            return (
                f"There is nothing at {shown}; the route is {route}. "
                "A client's base URL is the server's address with /v1 at its end."
            )
    return f"There is nothing at {shown}. The routes are {', '.join(served)}; /openapi.json describes them."


def _from_validation(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return ApiError(400, "The body is not valid JSON.", code="invalid_json")
    where, mistake = sentence({**first, "loc": first["loc"][1:]})  # behind "body", "query" or "path"
    param = ".".join(where)[:200] or None
    code = CODES_OF_MISTAKES.get(first["type"], "invalid_parameter")
    if code == "unknown_parameter":
        return ApiError(400, f"Unknown field: {param}.", param=param, code=code)
    message = f"{param}: {mistake}." if param else f"The body {mistake}."
    return ApiError(400, message, param=param, code=code)


def crashed(error: BaseException) -> ApiError:
    """Log where an internal error happened, without values, which may be a client's text."""
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    log.error("internal error %s\n%s", type(error).__name__, frames)
    return ApiError(500, "Internal error; the server's log says where.", code="internal_error")
