"""Values with their intervals, one row for each method, all on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..scales import FREE, Bounds, Scale, linear
from ..style import Look
from ..svg import Canvas, shortened, text_width
from .axes import Say, horizontal


@dataclass(frozen=True)
class Dot:
    """A value with its interval and the seeds' values; the dots of one row are drawn below each other."""

    value: float
    low: float | None = None
    high: float | None = None
    seeds: tuple[float, ...] = ()
    hollow: bool = False
    tip: str = ""


def intervals(
    rows: Sequence[tuple[Look, Sequence[Dot]]], *, width: float, title: str, about: str, label: str,
    say: tuple[Say, Say], join: bool = False, line: float | None = None, bounds: Bounds = FREE,
) -> Markup:  # fmt: skip
    """Draw one row for each look, with the dots that belong to it.

    `join` draws the gap between a row's dots, and `line` a value to compare with. `say` formats values and
    ticks. A narrow drawing shows each name above its row.
    """
    narrow = width < 500
    most = max(len(dots) for _, dots in rows)
    names = 0 if narrow else min(300, max(text_width(look.name) for look, _ in rows) + 12)
    high = (22 if narrow else 10) + 14 * most + 6
    top, bottom = 8.0, 8.0 + high * len(rows)
    canvas = Canvas(width, bottom + (42 if label else 22), title, about)
    every = [dot for _, dots in rows for dot in dots]
    values = [line, *(v for dot in every for v in (dot.value, dot.low, dot.high, *dot.seeds))]
    scale = linear([v for v in values if v is not None], names + 8, width - 64, bounds=bounds)
    horizontal(canvas, scale, top, bottom, say[1], label)
    if line is not None:
        canvas.line(scale(line), top, scale(line), bottom, "baseline")
    for i, (look, dots) in enumerate(rows):
        y = top + i * high
        room = width - 8 if narrow else names - 8
        canvas.text(
            2, y + (14 if narrow else high / 2 + 4), shortened(look.name, room), f"name {look.colour}"
        )
        first = y + (20 if narrow else 5) + 8
        if join and len(dots) > 1:
            places = [(scale(dot.value), first + 14 * j) for j, dot in enumerate(dots)]
            canvas.path(places, f"join {look.colour}")
        for j, dot in enumerate(dots):
            _dot(canvas, look, dot, scale, first + 14 * j, say[0])
    return canvas.markup()


def _dot(canvas: Canvas, look: Look, dot: Dot, scale: Scale, y: float, say: Say) -> None:
    end = scale(max(v for v in (dot.value, dot.high, *dot.seeds) if v is not None))
    with canvas.group(look.colour, dot.tip):
        if dot.low is not None and dot.high is not None:
            canvas.line(scale(dot.low), y, scale(dot.high), y, f"whisker {look.colour}")
        for seed in dot.seeds if len(dot.seeds) > 1 else ():
            canvas.line(scale(seed), y - 5, scale(seed), y + 5, f"seed {look.colour}")
        canvas.mark(scale(dot.value), y, look, 5, dot.hollow)
    canvas.text(end + 8, y + 4, say(dot.value), "figure", size=11)
