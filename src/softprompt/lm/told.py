"""An exception on the way through a model becomes an error with its reason: nobody sees a traceback.

The exception stays chained as the cause, and says whether transformers' code or ours raised it.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

from ..errors import SoftPromptError

OURS = "softprompt"


@contextlib.contextmanager
def told(model: Any, what: str = "cannot be run") -> Iterator[None]:
    """Whatever is raised inside comes out as a SoftPromptError; one that is one already stays as it is."""
    try:
        yield
    except SoftPromptError:
        raise
    except Exception as error:
        where = place(error)
        raise SoftPromptError(
            f"model family '{model.config.model_type}' {what}",
            why=f"{reason(error)} ({where})",
            fix="report it to softprompt, with this message: it may be a fault of ours"
            if where.startswith(OURS)
            else "use another base model, or another version of transformers: its own code raised this",
        ) from error


def reason(error: BaseException) -> str:
    """The error's kind and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def place(error: BaseException) -> str:
    """The file, from its package on, and the line that raised it: the deepest that is not torch's."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        parts = frame.filename.replace("\\", "/").split("/")
        for package in (OURS, "transformers"):
            if package in parts:
                start = len(parts) - 1 - parts[::-1].index(package)
                return f"{'/'.join(parts[start:])}:{frame.lineno}"
    return "in torch"
