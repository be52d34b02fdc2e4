"""Web pages of other origins may call the server from a browser only where the operator names them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from ...errors import SoftPromptError

PORTS = {"http": 80, "https": 443}


def allow(app: FastAPI, origins: Sequence[str]) -> None:
    """Answer pages of these origins (`*`: any), before keys are checked: a browser's preflight has no key.

    Call this last, so that pages can read the errors of all other layers. Raises SoftPromptError for a text
    that is no origin.
    """
    if not origins:
        return
    # browsers ask for this where a public page calls a private address; older versions of starlette allow it
    known = inspect.signature(CORSMiddleware).parameters
    private: dict[str, Any] = {"allow_private_network": True} if "allow_private_network" in known else {}
    app.add_middleware(
        CORSMiddleware,  # type: ignore[arg-type]
        allow_origins=[origin(text) for text in origins],
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["Retry-After", "WWW-Authenticate"],
        **private,
    )


def origin(text: str) -> str:
    """Write an origin as browsers send it. Raises SoftPromptError for a text that is none."""
    if text in ("*", "null"):
        return text
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    more = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if not host or not parts.scheme or more:
        raise SoftPromptError(
            f"'{text}' is not an origin of web pages",
            why="browsers send a scheme and a host, and a port unless it is the default one",
            fix="--cors-origin https://example.org, http://localhost:3000, or * for every page",
        )
    shown = f"[{host}]" if ":" in host else host
    is_default = port is None or port == PORTS.get(parts.scheme)
    return f"{parts.scheme}://{shown}" if is_default else f"{parts.scheme}://{shown}:{port}"
