"""Regression targets are checked for values that a head cannot learn as they are.

A head starts near 0 and moves by small steps, so targets should have a centre near 0 and a spread near 1.
This file knows numbers only.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

FAR = 20  # times the spread of the middle half, from the median: no usual distribution reaches so far
LARGE, SMALL = (
    100,
    0.01,
)  # the largest number that a head reaches, and the smallest difference that it learns


def outliers(values: Sequence[float]) -> list[int]:
    """Return the places of values that are far from all others; none where the middle half is one number."""
    if len(values) < 4:
        return []
    low, middle, high = statistics.quantiles(values, n=4)
    if high == low:
        return []
    return [place for place, value in enumerate(values) if abs(value - middle) > FAR * (high - low)]


def scaled(values: Sequence[float]) -> tuple[float, float] | None:
    """Return (centre, unit) such that (value - centre) / unit is easy to learn; None where no scaling is
    needed.

    Both are round numbers. The values must not be all equal.
    """
    low, high = min(values), max(values)
    half, centre = (high - low) / 2, (high + low) / 2
    far = abs(centre) > 10 * half and abs(centre) > 1  # reaching it would take all of the training
    if max(abs(low), abs(high)) <= LARGE and high - low >= SMALL and not far:
        return None
    unit = 10.0 ** math.ceil(math.log10(half) - 0.5)
    return round(centre / unit) * unit, unit


def expression(field: str, centre: float, unit: float) -> str:
    """Return the template that scales a field in this way."""
    moved = f"{field} | float"
    if centre:
        moved = f"({moved} {'-' if centre > 0 else '+'} {abs(centre):.12g})"
    return f"{{{{ {moved} / {unit:.12g} }}}}"
