"""Gives each contestant a look for every figure: a colour and a shape, so that neither is needed alone."""

from __future__ import annotations

from ...page.style import COLOURS, SHAPES, Look
from .schema import Comparison


def looks(comparison: Comparison) -> dict[str, Look]:
    """Return every contestant's look, in the study's order."""
    result = {}
    for i, item in enumerate(comparison.methods):
        # after eight the shapes move on by one, so that no pair of colour and shape comes twice
        result[item.name] = Look(item.name, f"c{i % COLOURS}", SHAPES[(i + i // COLOURS) % len(SHAPES)])
    for i, item in enumerate(comparison.references):
        dash = ("6 4", "2 3", "9 3 2 3", "12 4", "1 4")[i % 5]
        result[item.name] = Look(item.name, "cref", SHAPES[(i + 3) % len(SHAPES)], dash)
    return {item.name: result[item.name] for item in comparison.study.contestants}
