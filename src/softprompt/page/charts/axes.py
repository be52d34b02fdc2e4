"""Axes are a frame of thin lines with round numbers; the name of what is measured is above or below."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..scales import Scale
from ..style import Look
from ..svg import Canvas, shortened, text_width

Say = Callable[[float], str]
SMALL = 11
LEGEND = 20


def horizontal(canvas: Canvas, scale: Scale, top: float, bottom: float, say: Say, label: str = "") -> None:
    """Vertical grid lines with their numbers below, those left out that would touch; the label under them."""
    last = -1e9
    places = [(scale(tick), say(tick)) for tick in scale.ticks]
    if scale.zero is not None:
        places.insert(0, (scale.zero, say(0)))
    for x, text in places:
        canvas.line(x, top, x, bottom, "grid")
        half = text_width(text, SMALL) / 2
        x = min(max(x, half + 1), canvas.width - half - 1)
        if x - half > last:
            canvas.text(x, bottom + 15, text, "tick", "middle", SMALL)
            last = x + half + 4
    if label:
        middle = (scale.start + scale.end) / 2
        half = text_width(label) / 2
        middle = min(max(middle, half + 1), canvas.width - half - 1)
        canvas.text(middle, bottom + 34, label, "axis", "middle")


def vertical(canvas: Canvas, scale: Scale, left: float, right: float, say: Say, label: str = "") -> None:
    """Horizontal grid lines with their numbers at the left; the label above, where it is read easily."""
    for tick in scale.ticks:
        y = scale(tick)
        canvas.line(left, y, right, y, "grid")
        canvas.text(left - 6, y + 4, say(tick), "tick", "end", SMALL)
    if label:
        canvas.text(1, 14, label, "axis")


def below(canvas: Canvas, looks: Sequence[Look], top: float) -> None:
    """Draw a legend from `top` on: each name behind its shape, `LEGEND` high."""
    for i, look in enumerate(looks):
        y = top + 14 + LEGEND * i
        canvas.mark(10, y - 4, look, 5)
        canvas.text(22, y, shortened(look.name, canvas.width - 24), f"name {look.colour}")


def margin(scale_ticks: tuple[float, ...], say: Say) -> float:
    """Return the room that the numbers of a vertical axis need."""
    return max((text_width(say(tick), SMALL) for tick in scale_ticks), default=0) + 10
