"""Draws what more than one section has."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ....page import charts
from ....page.numbers import Unit
from ....page.style import Look


def of_methods(
    rows: Sequence[tuple[Look, Sequence[charts.Dot]]], u: Unit, *, title: str, about: str, join: bool = False
) -> list[Markup]:
    """Draw a line of intervals for each method, across the page and for a phone."""
    say, bounds = (u.bare, u.tick), u.bounds
    return [
        charts.intervals(
            rows, width=width, title=title, about=about, label=u.axis, say=say, join=join, bounds=bounds
        )
        for width in (charts.WIDE, charts.NARROW)
    ]
