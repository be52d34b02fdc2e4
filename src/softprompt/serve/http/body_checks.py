"""The form of a request, apart from what it says: its path, its method, what its body is written in."""

from __future__ import annotations

from email.message import Message

from starlette.types import Scope

from .errors import ApiError


def tidied(scope: Scope) -> Scope:
    """The same request without a slash at the end of its path, and HEAD as the GET whose head it wants."""
    path = scope["path"]
    if path != "/" and path.endswith("/"):
        scope = {**scope, "path": path[:-1]}
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


def check_body(scope: Scope, body: bytes) -> None:
    """Raises ApiError for a body that is not JSON in UTF-8, by what its headers say and by its bytes.

    A body without a type is not taken for JSON: any web page can make a browser send one, without asking.
    """
    if not body:
        return
    packed = _header(scope, b"content-encoding").strip().lower()
    if packed not in ("", "identity"):
        raise _unread(f"The body is packed ({packed[:20]}): send it as it is, without Content-Encoding.")
    given = Message()
    given["content-type"] = _header(scope, b"content-type") or "none/none"
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


def _header(scope: Scope, name: bytes) -> str:
    return next((value for key, value in scope["headers"] if key == name), b"").decode("latin-1")
