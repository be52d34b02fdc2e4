"""What a command of ours prints to stdout, for tests that run it in their own process."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence


def printed(main: Callable[[Sequence[str]], int], *arguments: str) -> tuple[int, str]:
    """Run a command, and return its exit code and stdout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(list(arguments))
    return code, out.getvalue()
