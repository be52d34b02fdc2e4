"""Reads from a training's journal how many seconds its steps had taken at each score of the dev rows.

The journal counts the seconds of steps alone, over all parts of a run that was stopped and resumed. A cache
in memory is computed as its rows are first read, so that its seconds are those of the first steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...tracking import journal


def with_seconds(history: Sequence[dict[str, Any]], file: Path) -> list[dict[str, Any]]:
    """Return the entries of a history, each with the `seconds` of all steps until then, where it is known."""
    spent = {
        line["step"]: line["seconds"]
        for line in journal.read(file)
        if line.get("kind") == "step" and isinstance(line.get("seconds"), int | float) and "step" in line
    }
    return [
        {**entry, "seconds": spent[entry["step"]]} if entry["step"] in spent else dict(entry)
        for entry in history
    ]


def last(history: Sequence[dict[str, Any]]) -> float | None:
    """Return the seconds of the steps until the last score; None where they are not known."""
    return next((entry["seconds"] for entry in reversed(history) if "seconds" in entry), None)
