"""Computes intervals of many differences that agree with the corrected tests.

An interval holds every true difference that the test does not reject: the sign-flip test (`bootstrap`) is
made of the differences by row less that amount, with the same draws. So it leaves out 0 exactly if the test
shows a difference. For m pairs each interval has the level alpha / m (Bonferroni), so that all of them hold
together in 95 of 100 studies. If a stepwise correction shows a difference that this level does not, the
interval has the level at which the correction tested that pair.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from softprompt.evaluation.stats.bootstrap import p_values

_DOUBLINGS, _HALVINGS = 24, 30
_NOTHING = 1e-12


def levels(p: np.ndarray, adjusted: np.ndarray, alpha: float) -> np.ndarray:
    """Return the level `[P]` of each interval: p is at most the level if adjusted p is at most alpha."""
    even = np.full(len(p), alpha / len(p))
    step = p * alpha / np.maximum(adjusted, np.finfo(float).tiny)
    return np.where(adjusted <= alpha, np.maximum(even, step), even)


def intervals(
    observed: np.ndarray,
    flips: np.ndarray,
    signs: np.ndarray,
    seeds: np.ndarray,
    level: np.ndarray,
    span: float = np.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds `[P]` of the differences `observed` `[P]`, each at its level `[P]`.

    `flips` `[R, P]` are means of differences by row with drawn signs, `signs` `[R]` the means of those signs,
    `seeds` `[R, P]` the drawn effects of seeds. `span` is the largest possible difference: bounds are
    within it, and infinite if it is infinite and no difference would be rejected.
    """
    null = flips + seeds

    def rejected(shift: np.ndarray) -> np.ndarray:
        return p_values(observed - shift, null - np.outer(signs, shift)) <= level

    low, high = (_bound(observed, rejected, null, side) for side in (-1, 1))
    return np.clip(low, -span, span), np.clip(high, -span, span)


def _bound(
    observed: np.ndarray, rejected: Callable[[np.ndarray], np.ndarray], null: np.ndarray, side: int
) -> np.ndarray:
    """Return the farthest amount on one side that is not rejected; 0 is tried, to agree with the test."""
    inner = observed.copy()
    towards_zero = np.sign(observed) == -side
    excluded = towards_zero & rejected(np.zeros_like(observed))
    inner[towards_zero & ~excluded] = 0.0
    reach = 2 * np.maximum(null.std(axis=0), np.abs(observed)) + _NOTHING
    outer = np.where(excluded, 0.0, inner + side * reach)
    bounded = excluded.copy()
    for _ in range(_DOUBLINGS):
        bounded |= rejected(outer)
        if bounded.all():
            break
        reach = np.where(bounded, reach, 2 * reach)
        outer = np.where(bounded, outer, inner + side * reach)
    for _ in range(_HALVINGS):
        middle = (inner + outer) / 2
        out = rejected(middle)
        inner, outer = np.where(out, inner, middle), np.where(out, middle, outer)
    inner = np.where(np.abs(inner - observed) < _NOTHING, observed, inner)
    return np.where(bounded, inner, side * np.inf)
