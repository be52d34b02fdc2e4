"""A command prints one JSON object, or text for people; numbers are formatted here too.

Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .._system.progress import duration as duration
from .._system.quiet import verbose
from ..errors import SoftPromptError
from .streams import json_text

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; logs go to stderr.")]


@dataclass(frozen=True, slots=True)
class Reply:
    """The result that a command returns: `data` for programs, `text` (a string, or rich's) for people.

    None means that there is nothing to print, or that it was printed already.
    """

    data: Mapping[str, Any] | None
    text: Any = None
    code: int = 0


def show(reply: Reply, as_json: bool) -> None:
    """Print a reply as one JSON object or as text."""
    if as_json:
        if reply.data is not None:
            print(json_text(jsonable(reply.data)), flush=True)
    elif isinstance(reply.text, str):
        print(reply.text, flush=True)
    elif reply.text is not None:
        from rich.console import Console

        # text, also where a notebook's process runs the command
        console = Console(force_jupyter=False, markup=False, highlight=False, emoji=False, soft_wrap=True)
        console.print(reply.text)


def show_error(error: SoftPromptError, as_json: bool) -> int:
    """Print what, why and how to fix it, and with `-v` the exception that caused it; return the exit code."""
    if verbose() and error.__cause__ is not None:
        log("".join(traceback.format_exception(error.__cause__)).rstrip())
    if as_json:
        show(Reply({"error": {"what": error.what, "why": error.why, "fix": error.fix}}), as_json)
    else:
        plain = bool(os.environ.get("NO_COLOR"))
        typer.secho("error: ", fg=None if plain else "red", bold=not plain, err=True, nl=False)
        log(str(error))
    return 1


def open_in_browser(page: Path) -> None:
    """Show a page in the browser; log it where there is none."""
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        log(f"no browser was found to open {page} in")


def log(text: str) -> None:
    """Write a line to stderr for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def jsonable(value: Any) -> Any:
    """Convert `value` for JSON: paths become text, numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def table(rows: Iterable[Sequence[Any]], *, right: Iterable[int] = (), indent: str = "  ") -> str:
    """Align columns, two spaces apart; the columns numbered in `right` are aligned at their right end."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*texts, strict=True)]
    flush = set(right)
    lines = []
    for row in texts:
        cells = [
            cell.rjust(width) if i in flush else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def scores(evaluation: Mapping[str, Any], name: str) -> str:
    """Format a metric with its interval: `0.853 [0.820, 0.884]`."""
    low, high = evaluation["intervals"][name]
    return f"{number(evaluation['metrics'][name])} [{number(low)}, {number(high)}]"


def number(value: float | None) -> str:
    """Format a number with at most four digits."""
    if value is None or not math.isfinite(value):
        return "n/a" if value is None else str(value)
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.2e}"
    return f"{value:.{max(0, min(3, 3 - len(str(int(abs(value)))) + 1))}f}"


def size(count: float) -> str:
    """Format a number of bytes, as `276 kB`."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
