"""An exception's type, message and place are described in one line."""

from __future__ import annotations

import traceback

OURS = "softprompt"


def reason(error: BaseException) -> str:
    """Return the exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def place(error: BaseException) -> str:
    """Return the file, from its package on, and the line that raised it: the deepest that is not torch's."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        parts = frame.filename.replace("\\", "/").split("/")
        for package in (OURS, "transformers"):
            if package in parts:
                start = len(parts) - 1 - parts[::-1].index(package)
                return f"{'/'.join(parts[start:])}:{frame.lineno}"
    return "in torch"
