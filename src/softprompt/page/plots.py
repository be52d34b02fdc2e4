"""Plots are drawn with matplotlib, so that a user may change them and save them in any format.

The report's drawings (`charts`) are SVG within a page. matplotlib is an extra, and is imported when the first
plot is drawn. Axes are made by pyplot: a notebook shows them, and elsewhere `pyplot.show()` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import SoftPromptError
from .numbers import Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.0  # inches
GREY = "0.5"  # is read on a white and on a dark page
_SHAPES = ("o", "s", "^", "D", "P", "v", "X", "p")


@dataclass(frozen=True)
class Mark:
    """A mark is a value in a metric's own numbers, with its interval; without a `look` it is grey."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    look: int | None = None

    @property
    def colour(self) -> str:
        """Return the colour of its number in the user's style."""
        return GREY if self.look is None else f"C{self.look % 10}"

    @property
    def shape(self) -> str:
        """Return a shape that tells it from its neighbours without the colour."""
        return "|" if self.look is None else _SHAPES[self.look % len(_SHAPES)]


def panels(*heights: float, share_x: bool = False) -> list[Axes]:
    """Return new axes of these heights (inches), each below the one before.

    Raises SoftPromptError where matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise SoftPromptError(
            "plots need matplotlib",
            why="the package matplotlib is not installed",
            fix="pip install 'softprompt[plot]'",
        ) from None
    _, axes = pyplot.subplots(
        len(heights),
        squeeze=False,
        sharex=share_x,
        figsize=(WIDTH, sum(heights)),
        height_ratios=heights,
        layout="constrained",
    )
    return list(axes[:, 0])


def legend(axes: Axes) -> None:
    """Add a legend whose names are shown as they are; matplotlib would read `$…$` in them as a formula."""
    for text in axes.legend().get_texts():
        text.set_parse_math(False)


def intervals(axes: Axes, marks: Sequence[Mark], unit: Unit, label: str) -> None:
    """Draw a row for each mark, the first at the top: a point with its number, and its interval as a line.

    Names are shown as they are, also with dollar signs.
    """
    places = list(range(len(marks), 0, -1))
    for mark, y in zip(marks, places, strict=True):
        value = unit.scale * mark.value
        if mark.low is not None and mark.high is not None:
            axes.plot([unit.scale * mark.low, unit.scale * mark.high], [y, y], color=mark.colour)
        axes.plot(value, y, mark.shape, color=mark.colour, markeredgewidth=2)
        place = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "fontsize": "small"}
        axes.annotate(unit.bare(mark.value), (value, y), **place)
    axes.set_yticks(places, [mark.name for mark in marks], parse_math=False)
    axes.set_ylim(0.4, len(marks) + 0.8)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
