"""Draws quality against cost: a point with its interval for each method, a dashed line for each reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..scales import FREE, Bounds, linear, positive
from ..style import Look
from ..svg import Box, Canvas, overlap, shortened, text_box
from .axes import LEGEND, SMALL, Say, below, horizontal, margin, vertical

#: Width that a name may take; longer ones are cut in their middle.
LONGEST = 220


@dataclass(frozen=True)
class Level:
    """A point at cost `x`, or, where x is None, a line across; `y` with its interval."""

    look: Look
    x: float | None
    y: float
    low: float | None
    high: float | None
    tip: str


def scatter(
    points: Sequence[Level], *, width: float, title: str, about: str, labels: tuple[str, str],
    say: tuple[Say, Say], higher: bool = True, steps: Sequence[float] = (), bounds: Bounds = FREE,
) -> Markup:  # fmt: skip
    """Draw the points. `labels` and `say` are (for x, for y), `steps` for the ticks of x, `bounds` for y.

    The thin stepped line joins the points to which no other is both cheaper and better. A narrow drawing
    shows the names below it.
    """
    narrow = width < 500
    legend = [p.look for p in points if p.x is not None] if narrow else []
    height = (360 if narrow else 440) + LEGEND * len(legend)
    canvas = Canvas(width, height, title, about)
    values = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    top, bottom = 28.0, height - 44.0 - LEGEND * len(legend)
    ys = linear(values, bottom, top, bounds=bounds)
    left, right = margin(ys.ticks, say[1]), width - 10
    dots = [p for p in points if p.x is not None]
    xs = positive([p.x for p in dots if p.x is not None], left + 8, right, steps=steps)
    vertical(canvas, ys, left, right, say[1], labels[1])
    horizontal(canvas, xs, top, bottom, say[0], labels[0])
    taken: list[Box] = []
    frontier = [(xs(p.x), ys(p.y)) for p in _frontier(dots, higher) if p.x is not None]
    if len(frontier) > 1:
        stairs = frontier[:1]
        for x, y in frontier[1:]:
            stairs += [(x, stairs[-1][1]), (x, y)]
        canvas.path(stairs, "frontier")
    for p in dots:
        x, y = xs(p.x or 0), ys(p.y)
        with canvas.group(p.look.colour, p.tip):
            if p.low is not None and p.high is not None:
                canvas.line(x, ys(p.low), x, ys(p.high), f"whisker {p.look.colour}")
                taken.append((x - 3, ys(p.high), x + 3, ys(p.low)))
            canvas.mark(x, y, p.look, 6)
        taken.append((x - 8, y - 8, x + 8, y + 8))
    frame = (left, top - 4, right, bottom)
    for p in [p for p in points if p.x is None]:
        with canvas.group(p.look.colour, p.tip):
            canvas.line(left, ys(p.y), right, ys(p.y), f"level {p.look.colour}", p.look.dash)
        _label(canvas, p.look, _along(left, right, ys(p.y)), taken, frame, SMALL)
        taken.append((left, ys(p.y) - 2, right, ys(p.y) + 2))
    below(canvas, legend, bottom + 44)
    for p in dots if not narrow else []:
        x, y = xs(p.x or 0), ys(p.y)
        _label(canvas, p.look, _around(x, y), taken, frame, 12, (x, y))
    return canvas.markup()


def _frontier(dots: Sequence[Level], higher: bool) -> list[Level]:
    sign = 1 if higher else -1
    result: list[Level] = []
    for p in sorted(dots, key=lambda p: (p.x or 0, -sign * p.y)):
        if not result or sign * p.y > sign * result[-1].y:
            result.append(p)
    return result


def _along(left: float, right: float, y: float) -> list[tuple[float, float, str]]:
    places = [(right - 4, y - 5, "end"), (right - 4, y + 14, "end"), (left + 6, y - 5, "start")]
    places += [(left + 6, y + 14, "start"), ((left + right) / 2, y - 5, "middle")]
    return [*places, ((left + right) / 2, y + 14, "middle")]


def _around(x: float, y: float) -> list[tuple[float, float, str]]:
    places = [(x + 11, y + 4, "start"), (x - 11, y + 4, "end")]
    for step in (0, 16, 32, 48, 64):
        places += [(x + 9, y - 10 - step, "start"), (x + 9, y + 18 + step, "start")]
        places += [(x - 9, y - 10 - step, "end"), (x - 9, y + 18 + step, "end")]
    return places


def _label(
    canvas: Canvas, look: Look, places: Sequence[tuple[float, float, str]], taken: list[Box], frame: Box,
    size: float, of: tuple[float, float] | None = None,
) -> None:  # fmt: skip
    """Write a name at the place where it covers least; a thin line leads to it where that is far away."""
    name = shortened(look.name, LONGEST, size)

    def cost(place: tuple[float, float, str]) -> float:
        x0, y0, x1, y1 = box = text_box(place[0], place[1], name, place[2], size)
        outside = (
            max(0, frame[0] - x0) + max(0, x1 - frame[2]) + max(0, frame[1] - y0) + max(0, y1 - frame[3])
        )
        return 1000 * outside + sum(overlap(box, other) for other in taken) + places.index(place) * 0.5

    x, y, anchor = min(places, key=cost)
    if of is not None and abs(y - of[1]) > 24:
        canvas.line(of[0], of[1], x, y - 3, "leader")
    taken.append(canvas.text(x, y, name, f"name {look.colour}", anchor, size))
