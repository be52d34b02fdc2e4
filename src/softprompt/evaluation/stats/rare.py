"""Bounds of a difference that few rows show: rows that all agree do not show that two methods are equal.

If two methods score the same on each of N rows, draws of these rows show no difference at all, yet a
difference in three rows of N could have been missed. So the rows on which either method is better are counted
as rare events, with exact bounds (Garwood 1936), and the two are combined (Zou & Donner 2008).
"""

from __future__ import annotations

from math import ceil

import numpy as np
from scipy.special import gammaincinv

#: With as many rows that differ, or more, the draws give good bounds.
FEW = 20.0


def widest(differences: np.ndarray, span: float, level: float) -> tuple[float, float] | None:
    """Return bounds of the mean of the differences by row `[N]`; None where many rows differ.

    `span` is the largest difference of a row, and `level` the chance that the bounds miss the true mean.
    It is None as well for an infinite span: a rare row could then differ by any amount.
    """
    if not np.isfinite(span):
        return None
    gains, losses = (float(np.maximum(side * differences, 0).sum()) / span for side in (1, -1))
    if gains + losses >= FEW:
        return None
    (g_low, g_high), (l_low, l_high) = (_bounds(count, level) for count in (gains, losses))
    low = gains - losses - np.hypot(gains - g_low, l_high - losses)
    high = gains - losses + np.hypot(g_high - gains, losses - l_low)
    scale = span / len(differences)
    return max(-span, float(low) * scale), min(span, float(high) * scale)


def fewest(margin: float, span: float, level: float) -> int:
    """Return how many rows bound a difference by `margin` if no row shows any."""
    return ceil(_bounds(0.0, level)[1] * span / margin)


def _bounds(count: float, level: float) -> tuple[float, float]:
    """Return exact bounds of the expected number of events of which so many were seen."""
    low = float(gammaincinv(count, level / 2)) if count > 0 else 0.0
    return low, float(gammaincinv(count + 1, 1 - level / 2))
