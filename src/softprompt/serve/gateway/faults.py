"""Failures of vLLM become errors that name it, and say what it answered and what to do.

A refusal of the request itself is the client's error; everything else is the engine's failure: a client whose
key is good must not read that a key is wrong, when it is the gateway's. This file makes no requests.
"""

from __future__ import annotations

import email.utils
import html
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from ...errors import SoftPromptError
from ..request import ContextExceeded, EngineAway, EngineBusy, EngineFailed, InvalidRequest, TooLarge

SHOWN = 300  # characters of its message
AWAY = 5.0  # Retry-After in seconds, where it sends none
BUSY = 1.0


def named(url: str, model: str | None = None) -> str:
    """Return vLLM's address, without a password, and the name under which it serves the base."""
    scheme, _, rest = url.rpartition("://")
    shown = f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]
    return f"vLLM at {shown}" + (f" (serving '{model}')" if model else "")


def refused(engine: str, status: int, headers: Mapping[str, str], content: bytes) -> SoftPromptError:
    """Return the error for an answer with another status than 200."""
    message = message_of(content)
    why = f"it answered {_status(status)}" + (f": {message}" if message else "")
    after = retry_after(headers)
    if status == 429:
        return EngineBusy(
            f"{engine} is busy", why, "ask again later", retry_after=BUSY if after is None else after
        )
    if status == 503:
        fix = "ask again later; its log says what it is doing"
        return EngineAway(
            f"{engine} takes no requests now", why, fix, retry_after=AWAY if after is None else after
        )
    if status == 413:
        return TooLarge(f"the request is too large for {engine}", why, "shorten the input")
    if status in (400, 422) and _is_json(content):
        if "--enable-prompt-embeds" in message:
            fix = "start vLLM with --enable-prompt-embeds"
            return EngineFailed(f"{engine} takes no embeddings, which this prompt is sent as", why, fix)
        kind = ContextExceeded if "context length" in message else InvalidRequest
        return kind(f"{engine} cannot answer this request", why, "change the request")
    if status in (401, 403):
        fix = "start the gateway with vLLM's key in SOFTPROMPT_VLLM_KEY"
        return EngineFailed(f"{engine} does not take the gateway's key", why, fix)
    if status == 404:
        fix = "check --vllm-url and vLLM's --served-model-name, and start the gateway again"
        return EngineFailed(f"{engine} does not have what the gateway asks for", why, fix)
    return EngineFailed(f"{engine} failed", why, "look at its log")


def refused_midway(engine: str, chunk: Mapping[str, Any]) -> SoftPromptError:
    """Return the error for one that is sent as a part of an answer."""
    body = chunk.get("error", chunk)
    code = body.get("code") if isinstance(body, Mapping) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return refused(engine, status, {}, json.dumps(chunk).encode())


def lost(engine: str, error: Exception, *, midway: bool) -> EngineFailed:
    """Return the error for a connection that failed, or broke (`midway`)."""
    why = f"{type(error).__name__}: {_system(error) or error}".rstrip(": ")
    if _is_tls(error):
        fix = "check --vllm-url (http or https); SSL_CERT_FILE names a file of authorities to trust"
        return EngineFailed(f"no secure connection to {engine}", why, fix)
    if midway:
        return EngineFailed(f"{engine} broke off its answer", why, "ask again; its log may say why")
    return EngineAway(
        f"{engine} does not answer", why, "start it, or give another --vllm-url", retry_after=AWAY
    )


def unreadable(engine: str, why: str) -> EngineFailed:
    """Return the error for an answer of a wrong form, without its content, which may be a client's text."""
    return EngineFailed(
        f"{engine} gave an answer that cannot be read", why, "check --vllm-url; look at its log"
    )


def renamed(engine: str, names: Sequence[str]) -> EngineFailed:
    """Return the error for a vLLM that no longer serves the model of the gateway's start."""
    fix = "check vLLM's --served-model-name, and start the gateway again"
    return EngineFailed(f"{engine} does not serve that model", f"it serves {', '.join(names) or 'none'}", fix)


def message_of(content: bytes) -> str:
    """Return the message in an error's body as one line; the body is JSON, an HTML page, or text."""
    text = content.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except ValueError:
        text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", text)
        return _short(html.unescape(text))
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(name):
            value = value[name]
    return _short(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read the header's seconds from either of its forms; None where it is absent or wrong."""
    given = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,6}(\.\d+)?", given):
        return float(given)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[:SHOWN] + "…"


def _status(status: int) -> str:
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return str(status)


def _is_json(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False


def _system(error: BaseException | None) -> str:
    """Return the operating system's reason behind a library's error, or an empty text."""
    reason = ""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            reason = _words(error)
        error = error.__cause__ or error.__context__ or next(iter(getattr(error, "exceptions", ())), None)
    return reason


def _words(error: OSError) -> str:
    """Return the system's words for an error; asyncio's contain the address, which clients must not read."""
    number = 0 if isinstance(error, (ssl.SSLError, socket.gaierror)) else error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or ""


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError) or "SSL" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
