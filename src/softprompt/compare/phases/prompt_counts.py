"""Which tables are trained to see what growth does: the same few prompts, among ever more others."""

from __future__ import annotations

from collections.abc import Sequence

from ..trials import Table

WATCHED = 4  # prompts that are scored in tables of every size


def watched(prompts: Sequence[str]) -> tuple[str, ...]:
    """The prompts whose quality is followed: the first few."""
    return tuple(prompts[:WATCHED])


def sizes(asked: Sequence[int], prompts: int) -> list[int]:
    """Sizes to be trained for it: of all prompts there is a final trial already."""
    return sorted({size for size in asked if size < prompts})


def tables(prompts: Sequence[str], size: int) -> list[Table]:
    """Tables of so many prompts that hold every watched one once: one table, or several of a smaller size."""
    followed, found = watched(prompts), []
    for start in range(0, len(followed), size):
        own = followed[start : start + size]
        others = [name for name in prompts if name not in own]
        found.append(Table((*own, *others[: size - len(own)]), own))
    return found
