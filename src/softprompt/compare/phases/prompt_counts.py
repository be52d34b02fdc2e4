"""Chooses tables of growing size, which hold the same few prompts among more and more others."""

from __future__ import annotations

from collections.abc import Sequence

from ..trials import Table

WATCHED = 4  # prompts that are scored in tables of every size


def watched(prompts: Sequence[str]) -> tuple[str, ...]:
    """Return the prompts whose quality is followed: the first few."""
    return tuple(prompts[:WATCHED])


def sizes(requested: Sequence[int], prompts: int) -> list[int]:
    """Return the sizes to train, ascending; a table of all prompts is the final trial already."""
    return sorted({size for size in requested if size < prompts})


def tables(prompts: Sequence[str], size: int) -> list[Table]:
    """Return tables of `size` prompts in which every watched prompt is scored once: one table or several."""
    followed, result = watched(prompts), []
    for start in range(0, len(followed), size):
        scored = followed[start : start + size]
        others = [name for name in prompts if name not in scored]
        result.append(Table((*scored, *others[: size - len(scored)]), scored))
    return result
