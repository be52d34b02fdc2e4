"""What limits a comparison: findings that are alike told once, and rows that cannot measure quality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from .numbers import listed
from .schema import Comparison, Finding

#: Of a split's rows ask for one label: the others are too few to tell anything (`diagnostics.held_out`).
SAME = 0.95


def merged(found: Sequence[Finding]) -> list[Finding]:
    """Findings of the same words as one, whose `contestant` lists whom it is about; warnings first."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in found:
        alike.setdefault((finding.level, finding.what), []).append(finding)
    ordered = sorted(alike.values(), key=lambda group: group[0].level != "warning")
    return [group[0] if len(group) == 1 else _one(group) for group in ordered]


def _one(group: Sequence[Finding]) -> Finding:
    names = [finding.contestant for finding in group if finding.contestant]
    evidence: dict[str, list[str]] = {}
    for finding in group:
        evidence.setdefault(finding.evidence, []).append(finding.contestant or "")
    told = [f"{listed(whose)}: {text}" if any(whose) else text for text, whose in evidence.items()]
    commands = dict.fromkeys(finding.command for finding in group if finding.command)
    return replace(
        group[0],
        contestant=listed(names) or None,
        evidence=group[0].evidence if len(told) == 1 else "; ".join(told),
        command="\n".join(commands) or None,
    )


def unmeasurable(found: Comparison, split: str) -> str | None:
    """Why a split's rows cannot measure quality, or None.

    A finding says so. Files written before have none, so that the labels of their rows are looked at too.
    """
    for finding in found.findings:
        if split in finding.splits:
            return finding.evidence
    targets = {e.row: e.target for e in found.examples if e.split == split and e.target is not None}
    if len(targets) < 2 or found.study.task not in ("", "classification"):
        return None
    label, count = Counter(targets.values()).most_common(1)[0]
    if count < SAME * len(targets):
        return None
    names = found.study.labels or []
    name = f"'{names[label]}'" if label < len(names) else f"label {label}"
    return f"{count} of {len(targets)} {split} rows ask for {name}"
