"""/play: one page on which the plain model, a person's own words and tuned prompts answer the same input.

The page is four files of this folder put together when the server starts: nothing is built, nothing is
fetched but this server's own API. It holds no secret, so it needs no key; what it asks of the API does.
"""

from __future__ import annotations

import html
from importlib import resources

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from ..._system.page_assets import base_style, content_hash


def routes(given: str = "") -> APIRouter:
    """Return the page's route. `given` is a text that a prompt was distilled from, for the page to show."""
    router = APIRouter()
    text, headers = page(given)

    @router.get("/play", include_in_schema=False)
    async def play() -> HTMLResponse:
        return HTMLResponse(text, headers=headers)

    return router


def page(given: str = "") -> tuple[str, dict[str, str]]:
    """The page and its headers, by which no other script than its own may run, and no other page show it."""
    style, script = base_style() + _asset("play.css"), _asset("play.js") + _asset("chat.js")
    text = _asset("play.html").replace("/* style */", style).replace("/* script */", script)
    # HTML drops the first line break of a textarea, which the file holds
    text = text.replace("</textarea>\n\n<template", f"{html.escape(given)}</textarea>\n\n<template", 1)
    policy = (
        f"default-src 'none'; script-src 'sha256-{content_hash(script)}'; "
        f"style-src 'sha256-{content_hash(style)}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    return text, headers


def _asset(name: str) -> str:
    return (resources.files("softprompt.serve.playground") / name).read_text(encoding="utf-8")
