"""Web pages from elsewhere that may call the server from a browser: none, unless the operator names them."""

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
    """Answer pages of these origins (`*`: of any), ahead of keys, which a browser's first question has not.

    To be added last, so that errors of all else reach the page too. Raises SoftPromptError for no origin.
    """
    if not origins:
        return
    # a page of the internet that calls a machine of the house asks for this, too; older versions let it pass
    known = inspect.signature(CORSMiddleware).parameters
    private: dict[str, Any] = {"allow_private_network": True} if "allow_private_network" in known else {}
    app.add_middleware(
        CORSMiddleware,  # type: ignore[arg-type]
        allow_origins=[origin(one) for one in origins],
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["Retry-After", "WWW-Authenticate"],
        **private,
    )


def origin(text: str) -> str:
    """An origin as browsers send it. Raises SoftPromptError."""
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
            why="browsers send a scheme and a host, and a port where it is not the usual one",
            fix="--cors-origin https://example.org, http://localhost:3000, or * for every page",
        )
    shown = f"[{host}]" if ":" in host else host
    usual = port is None or port == PORTS.get(parts.scheme)
    return f"{parts.scheme}://{shown}" if usual else f"{parts.scheme}://{shown}:{port}"
