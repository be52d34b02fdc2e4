"""A line of the results, and tables of them. This file knows nothing of what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

COLUMNS = ("measure", "case", "ours", "theirs", "unit", "ratio", "goal", "met", "note")


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison. `ratio` is what `goal` is about; `wrong` says what is wrong with the result itself."""

    measure: str
    case: str
    ours: float | None
    theirs: float | None
    unit: str
    ratio: float | None = None
    goal: float | None = None
    at_most: bool = False  # of the ratio; by itself the goal is the least it may be
    note: str = ""
    wrong: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none, or nothing to hold against it."""
        if self.ratio is None or self.goal is None:
            return None
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    @property
    def fault(self) -> str:
        """Why the result cannot stand, whatever its speed; empty where it can."""
        numbers = (self.ours, self.theirs, self.ratio)
        if not self.wrong and any(n is not None and not math.isfinite(n) for n in numbers):
            return "a number is not finite"
        return self.wrong

    def cells(self) -> tuple[str, ...]:
        """As texts, in the order of COLUMNS."""
        sign = "≤" if self.at_most else "≥"
        met = {True: "yes", False: "no", None: "" if self.goal is None else "–"}[self.met]
        numbers = (_number(self.ours), _number(self.theirs), self.unit, _ratio(self.ratio))
        goal = "" if self.goal is None else f"{sign} {self.goal:g}"
        note = f"WRONG: {self.fault}" if self.fault else self.note
        return self.measure, self.case, *numbers, goal, met, note

    def to_json(self) -> dict[str, Any]:
        """All that is known of it."""
        return asdict(self) | {"met": self.met, "fault": self.fault}


def apart(losses: Sequence[float], others: Sequence[float], allowed: float, what: str) -> str:
    """What is wrong with two runs whose losses should be the same at every step; empty where nothing is."""
    if len(losses) != len(others) or not losses:
        return f"{what}: {len(losses)} losses against {len(others)}"
    worst = max(abs(a - b) for a, b in zip(losses, others, strict=True))
    # not `>`, which NaN would pass
    return "" if worst <= allowed else f"{what}: losses differ by {worst:.1e}, allowed {allowed:g}"


def table(lines: Sequence[Line]) -> str:
    """Plain text in columns."""
    rows = [COLUMNS, *(line.cells() for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    padded = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in padded)


def markdown(lines: Sequence[Line]) -> str:
    """The tables of docs/performance.md, one a measure, each under its name."""
    parts = []
    for measure in dict.fromkeys(line.measure for line in lines):
        rows = [line.cells()[1:] for line in lines if line.measure == measure]
        head = [COLUMNS[1:], ["---"] * (len(COLUMNS) - 1)]
        parts.append(
            f"### {measure}\n\n"
            + "\n".join(f"| {' | '.join(row)} |".replace("  ", " ") for row in [*head, *rows])
        )
    return "\n\n".join(parts)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
