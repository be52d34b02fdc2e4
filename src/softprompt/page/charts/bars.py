"""One cost of every contestant as bars from zero, so that lengths may be compared."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ..style import Look
from ..svg import Canvas, shortened, text_width
from .axes import SMALL, Say


def bars(
    rows: Sequence[tuple[Look, float | None]], *, width: float, title: str, about: str, say: Say
) -> Markup:
    """Draw a name, a bar and its number in each row; a value that was not measured is named as such."""
    step = 34
    canvas = Canvas(width, step * len(rows) + 6, title, about)
    most = max((value for _, value in rows if value is not None), default=0) or 1
    numbers = max((text_width(say(v), SMALL) for _, v in rows if v is not None), default=0)
    full = width - numbers - 14
    for i, (look, value) in enumerate(rows):
        y = step * i
        canvas.text(1, y + 14, shortened(look.name, width - 4), f"name {look.colour}")
        if value is None:
            canvas.text(1, y + 29, "not measured", "figure", size=SMALL)
            continue
        length = full * value / most
        if value > 0:
            canvas.rect(1, y + 19, max(1.5, length), 11, f"bar {look.colour}")
        canvas.text(max(1.5, length) + 6 if value > 0 else 1, y + 29, say(value), "figure", size=SMALL)
    return canvas.markup()
