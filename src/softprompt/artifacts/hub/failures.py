"""Errors of the hub, and of the way to it, become errors that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..._system.exceptions import reason
from ...errors import SoftPromptError
from .reference import Reference

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
TOKENS = "https://huggingface.co/settings/tokens"
NOTHING_UPLOADED = "Nothing was uploaded: the files are sent as one commit"


@contextlib.contextmanager
def explained(reference: Reference, *, writes: bool = False) -> Iterator[None]:
    """Turn errors of `huggingface_hub` inside into SoftPromptError about this repository."""
    try:
        yield
    except SoftPromptError:
        raise
    except Exception as error:  # huggingface_hub raises errors of Python, of its own and of its HTTP library
        doing = "upload to" if writes else "read"
        why, fix = _reason_and_fix(error, reference, writes)
        if writes:
            why = f"{why}. {NOTHING_UPLOADED}"
        raise SoftPromptError(f"cannot {doing} {reference}", why, fix) from error


def no_token() -> SoftPromptError:
    """Make the error for an upload without a token."""
    return SoftPromptError(
        "there is no token for the Hugging Face hub",
        why="the hub accepts uploads only from an account, and you are not logged in",
        fix=f"{LOGIN} (a token with the right to write: {TOKENS})",
    )


def _reason_and_fix(error: Exception, reference: Reference, writes: bool) -> tuple[str, str]:
    from huggingface_hub import errors

    def raised(*kinds: type[BaseException]) -> Any:
        return next((each for each in chain if isinstance(each, kinds)), None)

    chain = _chain(error)
    id, revision = reference.id, reference.revision
    if raised(errors.GatedRepoError):
        return "its owner has not given you access", f"ask for access on its page, and {LOGIN}"
    if raised(errors.RevisionNotFoundError):
        return f"'{id}' has no revision '{revision or 'main'}'", "name a branch, a tag or a commit of it"
    if raised(errors.RepositoryNotFoundError) and not writes:
        return f"the hub has no model '{id}', or it is private", f"check owner and name; or {LOGIN}"
    if response := raised(errors.HfHubHTTPError):
        return _by_status(response, id, writes)
    if raised(errors.OfflineModeIsEnabled):
        absent = "this machine has no copy of it, and " if not writes else ""
        return f"{absent}HF_HUB_OFFLINE forbids asking the hub", "unset HF_HUB_OFFLINE"
    if raised(_http_error()) or raised(ConnectionError, TimeoutError):
        absent = "this machine has no copy of it, and " if not writes else ""
        return (
            f"{absent}the hub was not reached ({reason(chain[-1])})",
            "check the connection, and HF_ENDPOINT",
        )
    if raised(errors.LocalEntryNotFoundError):
        return "this machine has no whole copy of it, and the hub was not reached", "check the connection"
    return reason(error), "see the cause with -v; check the connection and try again"


def _by_status(error: Any, id: str, writes: bool) -> tuple[str, str]:
    status = error.response.status_code
    message = error.server_message or reason(error)
    again = "try again later"
    owner = id.partition("/")[0]
    if status == 401 and not writes:
        return "the hub does not accept the token", f"{LOGIN} anew"
    if status == 401:
        return (
            "the hub does not accept the token",
            f"{LOGIN} anew (a token with the right to write: {TOKENS})",
        )
    if status == 403:
        why = f"the token may not write to '{owner}'" if writes else "the token may not read it"
        return why, f"use a token of {owner} with the right to {'write' if writes else 'read'}: {TOKENS}"
    if status == 404 and writes:
        return f"the hub has no '{id}', or you may not see it", f"check owner and name; or {LOGIN}"
    if status in (409, 412):
        return f"the repository changed meanwhile ({message})", "run the same command again"
    if status == 429:
        return "the hub's limit of requests is reached", again
    if status >= 500:
        return f"the hub has a problem (status {status})", again
    return f"the hub answers {status}: {message}", "correct what it names, and try again"


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and its causes, the outermost first."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__
    return chain


def _http_error() -> type[BaseException]:
    """Return the base class of the errors of the HTTP library, which differs by version of the hub's."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(each for each in HfHubHTTPError.__mro__ if each.__name__ == "HTTPError")
