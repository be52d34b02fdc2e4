"""The section about calibration asks whether a method is right as often as it is sure."""

from __future__ import annotations

from ....page import charts
from ....page.blocks import Figure, Panel, Section, Table, Text
from ....page.numbers import MISSING, share
from ..aggregate import main_split, mean
from ..schema import Comparison
from ..style import looks

Bin = tuple[float, float, float]


def section(comparison: Comparison) -> Section:
    split, look = main_split(comparison), looks(comparison)
    panels, rows, u = [], [], share("ece", "calibration error")
    for name in look:
        known = [
            s.calibration
            for s in comparison.scores
            if (s.contestant, s.split) == (name, split) and s.calibration
        ]
        bins = pooled([bin_ for each in known for bin_ in each.get("bins") or []])
        if not bins:
            continue
        errors = [each["ece"] for each in known if each.get("ece") is not None]
        error = u.value(mean(errors)) if errors else MISSING
        drawn = charts.reliability(
            look[name],
            bins,
            width=charts.PANEL,
            title=f"Reliability of {name}, calibration error {error}",
            about="Share of right answers by confidence; on the diagonal both are equal.",
        )
        panels.append(Panel(f"{name}: error {error}", drawn))
        rows += [[name, error, u.value(c), u.value(a), f"{n:.0f}"] for c, a, n in bins]
    if not panels:
        text = "No confidences were measured: they belong to tasks with labels."
        return Section("calibration", "Calibration", [Text(text, quiet=True)])
    table = Table(
        f"Confidence and share of right answers on the {split} rows",
        ["method", "calibration error", "confidence", "right", "rows"],
        rows,
        right=(1, 2, 3, 4),
    )
    caption = (
        "Points below the diagonal: surer than right. Above: righter than sure. Larger points are more rows. "
        "The calibration error is the mean distance from the diagonal; 0 is best."
    )
    return Section(
        "calibration", "Calibration", [Figure("reliability", "Reliability", caption, panels, table)]
    )


def pooled(bins: list[dict[str, float | None]]) -> list[Bin]:
    """Join the bins of all seeds by tenths of confidence, weighted by their rows."""
    tenths: dict[int, list[Bin]] = {}
    for bin_ in bins:
        confidence, right, n = bin_.get("confidence"), bin_.get("accuracy"), bin_.get("n")
        if confidence is not None and right is not None and n:
            tenths.setdefault(min(9, int(confidence * 10)), []).append((confidence, right, n))
    result = []
    for _, group in sorted(tenths.items()):
        rows = sum(n for _, _, n in group)
        result.append((sum(c * n for c, _, n in group) / rows, sum(a * n for _, a, n in group) / rows, rows))
    return result
