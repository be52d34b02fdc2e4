"""An exception inside a model becomes an error with its reason, so that nobody sees a traceback.

The exception is kept as the cause. The error says whether transformers' code or ours raised it.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

from .._system.exceptions import OURS, place, reason
from ..errors import SoftPromptError

MODULE = "torch/nn/modules/module.py"  # every call of a module passes through this file


class DoesNotRun(SoftPromptError):
    """A model raised an exception while it was run; the exception is the cause."""


@contextlib.contextmanager
def errors_explained(model: Any) -> Iterator[None]:
    """Turn each exception that is raised inside into a SoftPromptError, with the exception as its cause.

    Three kinds stay as they are: a SoftPromptError, an exception of missing memory (callers try again with
    less), and one that `_is_about_options` finds not to be the model's.
    """
    try:
        yield
    except (SoftPromptError, MemoryError):
        raise
    except Exception as error:
        if is_of_memory(error) or _is_about_options(error):
            raise
        where = place(error)
        raise DoesNotRun(
            f"model family '{model.config.model_type}' cannot be run",
            why=f"{reason(error)} ({where})",
            fix="report it to softprompt, with this message: it may be a fault of ours"
            if where.startswith(OURS)
            else "use another base model, or another version of transformers: its own code raised this",
        ) from error


def is_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, which torch reports in a RuntimeError."""
    return isinstance(error, RuntimeError) and "memory" in str(error).lower()


def _is_about_options(error: BaseException) -> bool:
    """Return whether the caller's options or functions raised it, while no module was running.

    transformers' `generate` refuses an option before it runs the model, and calls a caller's own functions
    (streamers, criteria, processors) between two runs.
    """
    files = [frame.filename.replace("\\", "/") for frame in traceback.extract_tb(error.__traceback__)]
    if any(file.endswith(MODULE) for file in files):
        return False
    last = files[-1]
    if f"/{OURS}/" in last or "/transformers/models/" in last or "/torch/" in last:
        return False
    return "/transformers/" not in last or isinstance(error, (ValueError, TypeError, NotImplementedError))
