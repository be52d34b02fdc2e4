"""Draws curves: quality as rows or prompts grow, an effect as strength grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from ..scales import FREE, Bounds, Scale, linear, logarithmic, spread
from ..style import Look
from ..svg import Canvas, shortened, text_width
from .axes import LEGEND, Say, below, horizontal, margin, vertical


@dataclass(frozen=True)
class Curve:
    """Points (x, y, lowest, highest); the last two are None for one seed."""

    look: Look
    points: Sequence[tuple[float, float, float | None, float | None]]


def lines(
    curves: Sequence[Curve], *, width: float, title: str, about: str, labels: tuple[str, str],
    say: tuple[Say, Say], log: bool = False, bounds: Bounds = FREE, ticks: Sequence[float] = (),
    band: bool = False,
) -> Markup:  # fmt: skip
    """Draw the curves, each with its name at its end; `bounds` limit the y axis.

    `ticks` are places on the x axis in place of the points' own. With `band` the lowest and highest values
    are an area instead of a stroke at each point.

    A narrow drawing shows the names below the curves, each after its shape.
    """
    narrow = width < 500
    legend = LEGEND * len(curves) if narrow else 0
    height = (300 if narrow else 380) + legend
    canvas = Canvas(width, height, title, about)
    top, bottom = 28.0, height - 44.0 - legend
    ys = linear(
        [v for c in curves for p in c.points for v in p[1:] if v is not None], bottom, top, bounds=bounds
    )
    left = margin(ys.ticks, say[1])
    names = 12 if narrow else min(200, max(text_width(c.look.name) for c in curves) + 16)
    places = [p[0] for c in curves for p in c.points]
    right = width - names
    xs = logarithmic(places, left + 10, right - 8) if log else linear(places, left + 10, right - 8, pad=0.03)
    if not log and len(set(places)) <= 8:
        xs = Scale(xs.low, xs.high, xs.start, xs.end, tuple(sorted(set(places))))
    if ticks:
        xs = replace(xs, ticks=tuple(ticks))
    vertical(canvas, ys, left, right, say[1], labels[1])
    horizontal(canvas, xs, top, bottom, say[0], labels[0])
    for curve in curves if band else ():
        _band(canvas, curve, xs, ys)
    for curve in curves:
        _curve(canvas, curve, xs, ys, say, band)
    if narrow:
        below(canvas, [curve.look for curve in curves], bottom + 44)
        return canvas.markup()
    ends = [curve.points[-1] for curve in curves]
    for curve, end, y in zip(curves, ends, spread([ys(e[1]) for e in ends], 15, top, bottom), strict=True):
        canvas.line(xs(end[0]) + 7, ys(end[1]), right + 4, y, "leader")
        name = shortened(curve.look.name, names - 10)
        canvas.text(right + 7, y + 4, name, f"name {curve.look.colour}")
    return canvas.markup()


def _band(canvas: Canvas, curve: Curve, xs: Scale, ys: Scale) -> None:
    """Fill the area between the lowest and the highest values."""
    known = [(x, low, high) for x, _, low, high in curve.points if low is not None and high is not None]
    if len(known) > 1 and any(high > low for _, low, high in known):
        edge = [(xs(x), ys(high)) for x, _, high in known]
        edge += [(xs(x), ys(low)) for x, low, _ in reversed(known)]
        canvas.path(edge, f"band {curve.look.colour}")


def _curve(
    canvas: Canvas, curve: Curve, xs: Scale, ys: Scale, say: tuple[Say, Say], band: bool = False
) -> None:
    colour = curve.look.colour
    if len(curve.points) > 1:
        canvas.path([(xs(p[0]), ys(p[1])) for p in curve.points], f"curve {colour}", curve.look.dash)
    for x, y, low, high in curve.points:
        with canvas.group(colour, f"{curve.look.name}: {say[1](y)} at {say[0](x)}"):
            if not band and low is not None and high is not None and high > low:
                canvas.line(xs(x), ys(low), xs(x), ys(high), f"whisker thin {colour}")
            canvas.mark(xs(x), ys(y), curve.look, 3.5 if band else 4.5)
