"""Markdown tables are written here."""

from __future__ import annotations

from collections.abc import Sequence


def cell(text: str) -> str:
    """Return text that stays within one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def code(value: object) -> str:
    """Return a value as code in a cell: YAML's words for None and truth."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    return f"`{' '.join(text.split())}`"  # a bar in code does not end the cell


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with these heads."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
