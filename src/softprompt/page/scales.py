"""From values to places on paper, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: A logarithmic axis where the largest value is this many times the smallest.
WIDE = 20

#: The least and the most that an axis shows.
Bounds = tuple[float, float]
FREE: Bounds = (-math.inf, math.inf)


@dataclass(frozen=True)
class Scale:
    """`start` and `end` are the places of the lowest and the highest value, `zero` that of 0 on a logarithmic
    axis."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    logarithmic: bool = False
    zero: float | None = None

    def __call__(self, value: float) -> float:
        if not self.logarithmic:
            share = (value - self.low) / (self.high - self.low)
        elif value <= 0:
            return self.start if self.zero is None else self.zero
        else:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)


def linear(
    values: Iterable[float], start: float, end: float, *, count: int = 6, pad: float = 0.06,
    steps: Sequence[float] = (), bounds: Bounds = FREE,
) -> Scale:  # fmt: skip
    """A scale around the values, within `bounds`; ticks at multiples of one of `steps` or of a round one."""
    known = list(values)
    low, high = min(known), max(known)
    room = (high - low) * pad or abs(high) * pad or 1.0
    low, high = (
        max(low - room, bounds[0]),
        min(high + room, bounds[1]),
    )
    if high <= low:
        high = low + 1
    return Scale(low, high, start, end, round_ticks(low, high, count, steps))


def positive(
    values: Iterable[float], start: float, end: float, *, count: int = 6, steps: Sequence[float] = ()
) -> Scale:
    """Return a scale from 0; a logarithmic one, with a place for zeros, if values span more than `WIDE`."""
    known = list(values)
    above = [value for value in known if value > 0]
    if not above or max(above) / min(above) < WIDE:
        return linear([0, *known], start, end, count=count, steps=steps, pad=0.1, bounds=(0, math.inf))
    zero = start + 0.04 * (end - start) if len(above) < len(known) else None
    first = start if zero is None else start + 0.16 * (end - start)
    low, high = min(above) / 1.6, max(above) * 1.6
    ticks = tuple(step for step in steps if low <= step <= high)
    ticks = (
        ticks[:: math.ceil(len(ticks) / (count + 1))] if len(ticks) > 1 else decade_ticks(low, high, count)
    )
    return Scale(low, high, first, end, ticks, True, zero)


def logarithmic(values: Sequence[float], start: float, end: float) -> Scale:
    """A logarithmic scale whose ticks are the values themselves."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low / 2, high * 2
    return Scale(low, high, start, end, tuple(sorted(set(values))), True)


def round_ticks(low: float, high: float, count: int, steps: Sequence[float] = ()) -> tuple[float, ...]:
    """About `count` multiples of one of `steps`, or of 1, 2, 2.5 or 5 times a power of ten."""
    rough = (high - low) / max(1, count)
    power = 10 ** math.floor(math.log10(rough))
    powers = [power * factor for factor in (1, 2, 2.5, 5, 10)]
    step = next(step for step in (*steps, *powers) if step >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(float(f"{i * step:.12g}") for i in range(first, last + 1))


def decade_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return powers of ten; where they are few, twice and five times each too; where many, not every one."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**power for power in powers for f in factors if low <= f * 10.0**power <= high]
        if len(ticks) <= count + 2:
            return tuple(ticks)
    return tuple(ticks[:: math.ceil(len(ticks) / (count + 1))])


def spread(places: Sequence[float], gap: float, least: float, most: float) -> list[float]:
    """The places moved apart by at least `gap`, in their order, within the bounds where there is room."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [0.0] * len(places)
    last = least - gap
    for i in order:
        last = moved[i] = max(places[i], last + gap)
    limit = most
    for i in reversed(order):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - gap
    return moved
