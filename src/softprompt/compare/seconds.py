"""Counts the seconds that each method took, beside those that were planned (`compare.budget`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .records.pace import Timed
from .records.types import Record


def lines(timed: Timed | None, records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Yield a line for each method with a plan; none at equal steps.

    The seconds of a cache in memory are in those of the first steps. A cache on disk counts as it was
    planned: another method, or an earlier comparison, may have built it. The seconds of a method are None
    where those of one of its trials are not known.
    """
    for name, share in ({} if timed is None else timed.shares).items():
        phases = {
            phase: [r for r in records if r["contestant"] == name and r["phase"] == phase]
            for phase in ("search", "final")
        }
        parts = {f"{phase}_seconds": _sum(trials, "step_seconds") for phase, trials in phases.items()}
        both = [*phases["search"], *phases["final"]]
        parts["cache_seconds"] = share.disk_seconds
        known = [value for value in parts.values() if value is not None]
        yield {
            "kind": "time",
            "contestant": name,
            "steps": share.steps,
            "budget_seconds": timed.budget if timed is not None else None,
            "planned_seconds": share.seconds,
            **parts,
            "seconds": sum(known) if len(known) == len(parts) and both else None,
            "failed": sum(r["status"] == "failed" for r in both),
            "ended_early": sum(r["status"] != "failed" and r["steps"] < share.steps for r in both),
        }


def _sum(records: Sequence[Record], key: str) -> float | None:
    """Return the sum over trials that did not fail; None where one of them does not know it."""
    values = [record.get(key) for record in records if record["status"] != "failed"]
    known = [value for value in values if isinstance(value, int | float)]
    return sum(known) if len(known) == len(values) else None
