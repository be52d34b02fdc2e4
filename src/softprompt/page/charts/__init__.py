"""Each file draws one kind of chart. A chart gets values and looks, and knows nothing of comparisons."""

from __future__ import annotations

from .bars import bars
from .heat import READABLE, heat
from .intervals import Dot, intervals
from .lines import Curve, lines
from .reliability import reliability
from .scatter import Level, scatter

#: Widths of a drawing across the page, of one on a phone, and of one of several side by side.
WIDE, NARROW, PANEL = 960, 340, 300

__all__ = [
    "NARROW",
    "PANEL",
    "READABLE",
    "WIDE",
    "Curve",
    "Dot",
    "Level",
    "bars",
    "heat",
    "intervals",
    "lines",
    "reliability",
    "scatter",
]
