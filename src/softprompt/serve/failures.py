"""A failure inside the engine is logged as one line: its type, its place in the code, and its cause.

A failure that ends many answers is logged once. With `-v` the traceback follows. No text of a request is
logged: the engine works on token ids, and a library's message about numbers contains no text.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Collection, Iterable

from .._system.exceptions import place, reason
from .._system.quiet import verbose
from ..errors import SoftPromptError
from .request import Busy, InvalidRequest, ModelFailed, Stopped

log = logging.getLogger("softprompt.serve")
SHOWN = 3  # names of prompts in a line


def note(error: BaseException, answers: int = 1, prompts: Iterable[str | None] = ()) -> None:
    """Log a failure that ended so many answers under these prompts (None: the plain model)."""
    log.error("%s failed%s: %s", _count(answers), _under(set(prompts)), line(error))
    if verbose():
        log.error("%s", "".join(traceback.format_exception(error)).rstrip())


def line(error: BaseException) -> str:
    """Return an error's type, first line and place, and those of its cause, as one line."""
    cause = None if error.__cause__ is error else error.__cause__
    if not isinstance(error, SoftPromptError):
        text = f"{reason(error)} ({place(error)})"
        return text if cause is None else f"{text}; caused by {line(cause)}"
    if cause is not None:
        return f"{error.what}: {line(cause)}"
    words = ": ".join(part for part in (error.what, error.why) if part).replace("\n", " ")
    return f"{type(error).__name__}: {words} ({place(error)})"


def as_failure(error: Exception) -> SoftPromptError:
    """Turn an error into one for an answer's end, which does not blame the request for a failure."""
    if isinstance(error, (ModelFailed, InvalidRequest, Stopped, Busy)):
        return error
    if isinstance(error, SoftPromptError):
        return ModelFailed(error.what, error.why, error.fix)
    return ModelFailed("the model failed on this request", why=reason(error))


def not_finite() -> ModelFailed:
    try:  # raised, so that it has a place in the code
        raise ModelFailed(
            "the model's numbers for this request are not finite",
            why="the prompt drives it out of its range",
            fix="use another prompt, a lower strength, or dtype=float32",
        )
    except ModelFailed as error:
        return error


def _count(answers: int) -> str:
    return "an answer" if answers == 1 else f"{answers} answers"


def _under(prompts: Collection[str | None]) -> str:
    if not prompts:
        return ""
    names = sorted("the plain model" if name is None else name for name in prompts)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" (under {', '.join(names[:SHOWN])}{more})"
