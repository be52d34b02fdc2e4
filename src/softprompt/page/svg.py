"""Draws inline SVG: ElementTree makes the elements, so that texts are escaped; CSS classes give colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from xml.etree import ElementTree

from markupsafe import Markup

from .style import Look

#: Width of a character by its font size: generous, since the reader's font is not known.
_CHARACTER = 0.66
FONT = 12

Box = tuple[float, float, float, float]


class Canvas:
    """A drawing of `width` × `height` with a name and a description for those who do not see it."""

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self.width, self.height = width, height
        self.root = ElementTree.Element(
            "svg",
            {
                "viewBox": f"0 0 {_n(width)} {_n(height)}",
                "width": _n(width),
                "height": _n(height),
                "role": "img",
                "aria-label": title,
            },
        )
        ElementTree.SubElement(self.root, "desc").text = description
        self._in = self.root

    @contextmanager
    def group(self, classes: str, tip: str = "") -> Iterator[None]:
        """Elements drawn inside belong together; `tip` is shown under the mouse."""
        outer = self._in
        self._in = ElementTree.SubElement(outer, "g", {"class": classes})
        if tip:
            ElementTree.SubElement(self._in, "title").text = tip
        yield
        self._in = outer

    def line(self, x1: float, y1: float, x2: float, y2: float, classes: str, dash: str = "") -> None:
        self._add("line", classes, dash, x1=x1, y1=y1, x2=x2, y2=y2)

    def path(self, points: Sequence[tuple[float, float]], classes: str, dash: str = "") -> None:
        """A line through the points."""
        d = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self._add("path", classes, dash, d=d)

    def rect(self, x: float, y: float, width: float, height: float, classes: str, opacity: float = 1) -> None:
        faded = {"fill-opacity": opacity} if opacity < 1 else {}
        self._add("rect", classes, "", x=x, y=y, width=max(0, width), height=max(0, height), **faded)

    def circle(self, x: float, y: float, r: float, classes: str) -> None:
        self._add("circle", classes, "", cx=x, cy=y, r=r)

    def text(
        self, x: float, y: float, text: str, classes: str = "", anchor: str = "start", size: float = FONT
    ) -> Box:
        """Draw a text with its baseline at y, and return the box that it fills, by estimate."""
        element = self._add("text", classes, "", x=x, y=y)
        element.text = text
        if anchor != "start":
            element.set("text-anchor", anchor)
        if size != FONT:
            element.set("font-size", _n(size))
        return text_box(x, y, text, anchor, size)

    def mark(self, x: float, y: float, look: Look, r: float = 5, hollow: bool = False) -> None:
        """Draw a contestant's shape."""
        classes = f"{look.colour} {'hollow' if hollow else 'solid'}"
        if look.shape == "circle":
            self.circle(x, y, r, classes)
            return
        points = [(x + r * dx, y + r * dy) for dx, dy in _OUTLINES[look.shape]]
        d = "M" + "L".join(f"{_n(px)} {_n(py)}" for px, py in points) + "Z"
        self._add("path", classes, "", d=d)

    def markup(self) -> Markup:
        return Markup(ElementTree.tostring(self.root, encoding="unicode", short_empty_elements=True))

    def _add(self, tag: str, classes: str, dash: str, **numbers: object) -> ElementTree.Element:
        element = ElementTree.SubElement(self._in, tag)
        if classes:
            element.set("class", classes)
        if dash:
            element.set("stroke-dasharray", dash)
        for name, value in numbers.items():
            element.set(name, _n(value) if isinstance(value, (int, float)) else str(value))
        return element


_THIN = 0.38
_OUTLINES = {
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0, -1.15), (1.1, 0.85), (-1.1, 0.85)],
    "down": [(0, 1.15), (1.1, -0.85), (-1.1, -0.85)],
    "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
    "bar": [(-1.2, -0.5), (1.2, -0.5), (1.2, 0.5), (-1.2, 0.5)],
    "plus": [
        *((-_THIN, -1.2), (_THIN, -1.2), (_THIN, -_THIN), (1.2, -_THIN), (1.2, _THIN), (_THIN, _THIN)),
        *((_THIN, 1.2), (-_THIN, 1.2), (-_THIN, _THIN), (-1.2, _THIN), (-1.2, -_THIN), (-_THIN, -_THIN)),
    ],
}
_OUTLINES["cross"] = [((x - y) * 0.75, (x + y) * 0.75) for x, y in _OUTLINES["plus"]]


def text_width(text: str, size: float = FONT) -> float:
    """Estimate a text's width, rather too wide than too narrow."""
    return len(text) * size * _CHARACTER


def text_box(x: float, y: float, text: str, anchor: str = "start", size: float = FONT) -> Box:
    """Left, top, right, bottom of a text with its baseline at y."""
    width = text_width(text, size)
    left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
    return left, y - 0.85 * size, left + width, y + 0.25 * size


def shortened(text: str, width: float, size: float = FONT) -> str:
    """The text, cut in its middle where it is wider than `width`."""
    fits = int(width / (size * _CHARACTER))
    if len(text) <= fits:
        return text
    head = max(1, (fits - 1) // 2)
    return text[:head] + "…" + text[len(text) - max(1, fits - 1 - head) :]


def overlap(a: Box, b: Box) -> float:
    """Return the area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
