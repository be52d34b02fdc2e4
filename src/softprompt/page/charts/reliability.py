"""Draws a reliability diagram: how often answers are right, by how sure the model was."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ..scales import Scale
from ..style import Look
from ..svg import Canvas
from .axes import horizontal, vertical

_QUARTERS = (0, 0.25, 0.5, 0.75, 1)


def reliability(
    look: Look, bins: Sequence[tuple[float, float, float]], *, width: float, title: str, about: str
) -> Markup:
    """`bins` are (confidence, share right, rows); a point's area grows with its rows."""
    height = width * 0.86
    canvas = Canvas(width, height, title, about)
    left, right, top, bottom = 40.0, width - 14, 26.0, height - 42
    xs, ys = Scale(0, 1, left, right, _QUARTERS), Scale(0, 1, bottom, top, _QUARTERS)

    def say(value: float) -> str:
        return f"{100 * value:.0f}"

    vertical(canvas, ys, left, right, say, "right (%)")
    horizontal(canvas, xs, top, bottom, say, "confidence (%)")
    canvas.line(xs(0), ys(0), xs(1), ys(1), "baseline", "4 4")
    most = max((rows for _, _, rows in bins), default=1) or 1
    shown = sorted(bins)
    if len(shown) > 1:
        canvas.path([(xs(c), ys(a)) for c, a, _ in shown], f"curve thin {look.colour}")
    for confidence, right_share, rows in shown:
        tip = f"{rows:.0f} rows: {100 * confidence:.0f} % sure, {100 * right_share:.0f} % right"
        with canvas.group(look.colour, tip):
            canvas.mark(xs(confidence), ys(right_share), look, 2.5 + 5 * (rows / most) ** 0.5)
    return canvas.markup()
