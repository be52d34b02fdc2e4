"""A request's form is checked here, not its content: path, method, and the encoding of its body."""

from __future__ import annotations

from email.message import Message

from starlette.types import Scope

from .errors import ApiError


def tidied(scope: Scope) -> Scope:
    """Remove a slash from the end of the path, and turn HEAD into the GET whose head it wants."""
    path = scope["path"]
    if path != "/" and path.endswith("/"):
        scope = {**scope, "path": path[:-1]}
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


def check_body(scope: Scope, body: bytes) -> None:
    """Raise ApiError for a body that is not JSON in UTF-8, by its headers and by its bytes.

    A body without a type is refused too: any web page can make a browser send one, without asking.
    """
    if not body:
        return
    packed = header(scope, b"content-encoding").strip().lower()
    if packed not in ("", "identity"):
        raise _unread(f"The body is packed ({packed[:20]}): send it as it is, without Content-Encoding.")
    given = Message()
    given["content-type"] = header(scope, b"content-type") or "none/none"
    kind, charset = given.get_content_type(), given.get_content_charset("utf-8")
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        came = "without a type" if kind == "none/none" else f"as {kind[:60]}"
        raise _unread(f"Send the header `Content-Type: application/json`: the body came {came}.")
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise _unread(f"JSON is written in UTF-8: a body in {charset[:20]} is not read.")
    try:
        body.decode()
    except UnicodeDecodeError:
        raise ApiError(400, "The body is not UTF-8, in which JSON is written.", code="invalid_json") from None


def _unread(message: str) -> ApiError:
    return ApiError(415, message, code="unsupported_media_type")


def header(scope: Scope, name: bytes) -> str:
    """Return a header's value, or an empty text; `name` is in small letters."""
    return next((value for key, value in scope["headers"] if key == name), b"").decode("latin-1")
