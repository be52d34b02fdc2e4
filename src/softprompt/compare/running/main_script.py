"""Worker processes begin by importing the main script, which must not start the comparison again.

Python's `spawn` runs the main script again in each process. One that calls a comparison
outside of `if __name__ == "__main__":` would run twice, and one from standard input cannot be
found. Workers need nothing of such a script, so they start without it.
"""

from __future__ import annotations

import ast
import multiprocessing
import multiprocessing.context
import sys
import threading
import types
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

_lock = threading.Lock()


def context() -> SpawnContext:
    """Return the way in which the worker processes of the caller's comparison start."""
    return _WithoutMain() if runs_unguarded(sys._getframe()) else multiprocessing.get_context("spawn")


def runs_unguarded(frame: Any) -> bool:
    """Return whether this frame or one above it runs the main script outside of its guard."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None or getattr(main, "__spec__", None) is not None:  # no script: a notebook, -c, or -m
        return False
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(main):
            return not _guarded(file, frame.f_lineno)
        frame = frame.f_back
    return not Path(file).exists()  # in a thread, only a script that cannot be found is known to fail


def _guarded(file: str, line: int) -> bool:
    """Return whether a line of a script is under a condition on its name."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    around = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and node.lineno <= line <= (node.end_lineno or line)
    )
    names = (part for node in around for part in ast.walk(node.test) if isinstance(part, ast.Name))
    return any(name.id == "__name__" for name in names)


class _Process(multiprocessing.context.SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _lock:  # the main module is looked up while the process starts
            main = sys.modules["__main__"]
            sys.modules["__main__"] = types.ModuleType("__main__")
            try:
                return multiprocessing.context.SpawnProcess._Popen(process_obj)  # type: ignore[attr-defined]
            finally:
                sys.modules["__main__"] = main


class _WithoutMain(SpawnContext):
    """`spawn`, except that a process does not import the main script."""

    Process = _Process  # type: ignore[assignment]
