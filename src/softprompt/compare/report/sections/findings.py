"""The section of findings tells what is worth knowing about the run, with the command that fixes it."""

from __future__ import annotations

from ....page.blocks import Item, Items, Section, Text
from ..limits import merged
from ..schema import Comparison


def section(comparison: Comparison) -> Section:
    if not comparison.findings:
        return Section("findings", "Findings", [Text("No findings.", quiet=True)])
    items = [
        Item(
            f"{finding.contestant}: {finding.text}" if finding.contestant else finding.text,
            finding.evidence,
            finding.command,
            finding.level,
        )
        for finding in merged(comparison.findings)
    ]
    return Section("findings", "Findings", [Items(items)])
