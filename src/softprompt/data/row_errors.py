"""Work on every row raises one error for all rows that it fails on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from softprompt._system.progress import track
from softprompt.data.capacity import TooLong
from softprompt.data.capacity import fix as room_for
from softprompt.errors import SoftPromptError

T = TypeVar("T")
SHOWN = 5  # rows named in an error about many


def each(rows: Sequence[Any], work: Callable[[Any], T], name: str = "encoding rows") -> list[T]:
    """Return the results of `work` on every row; one error names the first few that fail, and counts them
    all.

    `name` is what a display of progress calls the work.
    """
    results: list[T] = []
    errors: list[SoftPromptError] = []
    for row in track(rows, name):
        try:
            results.append(work(row))
        except SoftPromptError as error:
            errors.append(error)
    if not errors:
        return results
    if len(errors) == 1:
        raise errors[0]
    more = len(errors) - SHOWN
    lines = [f"  {error.what}" for error in errors[:SHOWN]] + ([f"  … and {more} more"] if more > 0 else [])
    raise SoftPromptError(
        f"{len(errors)} of {len(rows)} rows cannot be used\n" + "\n".join(lines),
        why=f"of the first: {errors[0].why}" if errors[0].why else "",
        fix="; ".join(_fixes(errors)),
    )


def _fixes(errors: Sequence[SoftPromptError]) -> list[str]:
    """Return the fixes of the first few; for all rows that are too long, the one that makes them all fit."""
    long = [error for error in errors if isinstance(error, TooLong)]
    others = [error.fix for error in errors if error.fix and not isinstance(error, TooLong)]
    whole = [room_for([(error.room, error.need) for error in long])] if long else []
    return list(dict.fromkeys([*whole, *others[:SHOWN]]))
