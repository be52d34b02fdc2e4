"""What is worth knowing about the run, with the command that mends it."""

from __future__ import annotations

from ..blocks import Item, Items, Section, Text
from ..limits import merged
from ..schema import Comparison


def section(found: Comparison) -> Section:
    if not found.findings:
        return Section("findings", "Findings", [Text("Nothing stood out.", quiet=True)])
    items = [
        Item(
            f"{finding.contestant}: {finding.what}" if finding.contestant else finding.what,
            finding.evidence,
            finding.command,
            finding.level,
        )
        for finding in merged(found.findings)
    ]
    return Section("findings", "Findings", [Items(items)])
