"""`softprompt shell` runs several commands in one process, which imports its libraries once."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import traceback
from collections.abc import Iterator

from .output import Json, Reply, log

PROMPT = "softprompt> "
ENDS = ("exit", "quit")


def shell(json: Json = False) -> Reply:
    """Run several commands in one process.

    Torch and transformers are imported when the shell starts, so that commands begin at once. Type
    commands without `softprompt`; `exit` or Ctrl-D ends the shell, and Ctrl-C ends a command.
    Lines that are piped into it are commands too. A line that starts with # is a comment.
    The exit code is that of the last command.

    \b
    Example:
      softprompt shell
      printf 'methods\\nmodels\\n' | softprompt shell
    """
    typed = sys.stdin.isatty()
    if typed:
        log("importing torch and transformers …")
        import transformers.modeling_utils  # noqa: F401  it imports torch

        log("type a command without `softprompt`, as `check recipe.yaml`; --help lists them, exit ends")
    codes = [_run(line) for line in _lines(typed)]
    code = codes[-1] if codes else 0
    return Reply({"commands": len(codes), "failed": sum(map(bool, codes))}, code=code)


def _lines(typed: bool) -> Iterator[str]:
    """Yield the lines up to the one that ends the shell."""
    with _completion() if typed else contextlib.nullcontext():
        while True:
            try:
                line = input(PROMPT) if typed else next(sys.stdin)
            except KeyboardInterrupt:  # the line that was begun is dropped
                log("")
                continue
            except (EOFError, StopIteration):
                return
            if line.strip() in ENDS:
                return
            if line.strip() and not line.lstrip().startswith("#"):
                yield line


def _run(line: str) -> int:
    """Run the command of a line and return its exit code; no error ends the shell."""
    from . import main

    try:
        words = shlex.split(line)
    except ValueError:
        log(f"error: a quotation is not closed\n  why: {line.strip()}\n  fix: close it on the same line")
        return 2
    words = words[1:] if words[0] == "softprompt" else words
    if words[:1] == ["shell"]:
        log("error: this is the shell already\n  fix: type another command")
        return 1
    try:
        return main(words)
    except Exception:  # a fault of ours: what was typed before it should not be lost
        traceback.print_exc()
        return 1


@contextlib.contextmanager
def _completion() -> Iterator[None]:
    """Complete the names of commands and files with the Tab key, where the terminal's library can."""
    try:
        import readline
    except ImportError:  # Windows has none
        yield
        return
    before, delimiters = readline.get_completer(), readline.get_completer_delims()
    readline.set_completer(_complete)
    readline.set_completer_delims(" \t\n=")
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(before)
        readline.set_completer_delims(delimiters)


def _complete(word: str, state: int) -> str | None:
    """Return the `state`-th completion of a word: of a command if it is the first, else of a path."""
    import glob
    import readline

    from typer.main import get_command

    from .app import app

    first = not readline.get_line_buffer()[: readline.get_begidx()].strip()
    if first:
        fitting = sorted(name for name in get_command(app).commands if name.startswith(word))  # type: ignore[attr-defined]
    else:
        paths = glob.iglob(glob.escape(word) + "*")
        fitting = sorted(path + "/" if os.path.isdir(path) else path for path in paths)
    return fitting[state] if state < len(fitting) else None
