"""Draws a confusion matrix: rows are the requested prompts, columns the answers; full colour is 100 %."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ..svg import Canvas, shortened, text_width
from .axes import SMALL

#: With more names than this, cells carry no text.
READABLE = 8

#: Above this share black and white text change places: both have a contrast of 4.5 on either side of it.
STRONG = 0.8


def heat(
    names: Sequence[str], counts: Sequence[Sequence[float]], *, width: float, title: str, about: str
) -> Markup:
    """Draw `counts[i][j]`: how often the answer was that of prompt j where prompt i was given."""
    n = len(names)
    left = min(width * 0.36, max(text_width(name, SMALL) for name in names) + 10) if n <= 24 else 8.0
    cell = min(64.0, (width - left - 4) / n)
    top = 24.0 + (left - 8 if 1 < n <= 24 else 8)
    canvas = Canvas(width, top + cell * n + 22, title, about)
    canvas.text(left, 12, "answer of prompt …", "axis", size=SMALL)
    for i, name in enumerate(names):
        if n <= 24:
            canvas.text(
                left - 6, top + cell * (i + 0.5) + 4, shortened(name, left - 8, SMALL), "tick", "end", SMALL
            )
            _column(canvas, left + cell * (i + 0.5) + 4, top - 6, shortened(name, top - 22, SMALL))
        total = sum(counts[i]) or 1
        for j, number in enumerate(counts[i]):
            share = number / total
            x, y = left + cell * j, top + cell * i
            with canvas.group("", f"given {name}, answered as {names[j]}: {number:g} of {total:g}"):
                canvas.rect(x, y, cell - 1, cell - 1, "cell0")
                if share > 0:
                    canvas.rect(x, y, cell - 1, cell - 1, "cell", 0.08 + 0.92 * share)
                if n <= READABLE:
                    classes = "count strong" if share > STRONG else "count"
                    canvas.text(x + cell / 2, y + cell / 2 + 4, f"{number:g}", classes, "middle", SMALL)
    canvas.text(left, top + cell * n + 15, "rows: the prompt given", "axis", size=SMALL)
    return canvas.markup()


def _column(canvas: Canvas, x: float, y: float, name: str) -> None:
    canvas.text(x, y, name, "tick", size=SMALL)
    canvas.root[-1].set("transform", f"rotate(-90 {x:.2f} {y:.2f})")
