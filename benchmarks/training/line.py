"""Results are lines, which are printed as tables. This file does not depend on the measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

COLUMNS = ("measure", "case", "ours", "theirs", "unit", "ratio", "goal", "met", "note")


@dataclass(frozen=True, slots=True)
class Line:
    """A line is one comparison. `goal` limits `ratio`; `wrong` says why the result itself is wrong."""

    measure: str
    case: str
    ours: float | None
    theirs: float | None
    unit: str
    ratio: float | None = None
    goal: float | None = None
    at_most: bool = False  # the goal is the ratio's maximum; by default its minimum
    note: str = ""
    wrong: str = ""

    @property
    def met(self) -> bool | None:
        """True if the goal is met; None if there is no goal or no ratio."""
        if self.ratio is None or self.goal is None:
            return None
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    @property
    def fault(self) -> str:
        """The reason why the result is invalid, whatever its speed; empty if it is valid."""
        numbers = (self.ours, self.theirs, self.ratio)
        if not self.wrong and any(n is not None and not math.isfinite(n) for n in numbers):
            return "a number is not finite"
        return self.wrong

    def cells(self) -> tuple[str, ...]:
        """Format the line in the order of COLUMNS."""
        sign = "≤" if self.at_most else "≥"
        met = {True: "yes", False: "no", None: "" if self.goal is None else "–"}[self.met]
        numbers = (_number(self.ours), _number(self.theirs), self.unit, _ratio(self.ratio))
        goal = "" if self.goal is None else f"{sign} {self.goal:g}"
        note = f"WRONG: {self.fault}" if self.fault else self.note
        return self.measure, self.case, *numbers, goal, met, note

    def to_json(self) -> dict[str, Any]:
        """Return all fields, and the properties `met` and `fault`."""
        return asdict(self) | {"met": self.met, "fault": self.fault}


def apart(losses: Sequence[float], others: Sequence[float], allowed: float, runs: str) -> str:
    """Return how two runs' losses differ that should be equal at every step; empty if they are equal."""
    if len(losses) != len(others) or not losses:
        return f"{runs}: {len(losses)} losses against {len(others)}"
    worst = max(abs(a - b) for a, b in zip(losses, others, strict=True))
    # not `>`, which NaN would pass
    return "" if worst <= allowed else f"{runs}: losses differ by {worst:.1e}, allowed {allowed:g}"


def table(lines: Sequence[Line]) -> str:
    """Format plain text in columns."""
    rows = [COLUMNS, *(line.cells() for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    padded = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in padded)


def markdown(lines: Sequence[Line]) -> str:
    """Format the tables of docs/performance.md, one for each measure, under its name."""
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
