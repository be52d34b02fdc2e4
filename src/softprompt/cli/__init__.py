"""The command line `softprompt` has one module for each command.

Heavy imports happen inside the commands, so `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 good, 1 a user's error, 2 usage, 130 interrupted."""
    from .app import app
    from .streams import prepare

    prepare()
    try:
        app(args=None if arguments is None else list(arguments), prog_name="softprompt")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
