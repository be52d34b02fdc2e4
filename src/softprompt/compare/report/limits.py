"""Finds what limits a comparison: warnings about the run, and rows that cannot measure quality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ...page.numbers import listed
from .schema import Comparison, Finding

#: Of a split's rows ask for one label: the others are too few to tell anything (`diagnostics.held_out`).
SAME = 0.95


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """Merge findings of the same words into one, whose `contestant` lists all of theirs; warnings first."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.level, finding.text), []).append(finding)
    ordered = sorted(alike.values(), key=lambda group: group[0].level != "warning")
    return [group[0] if len(group) == 1 else _one(group) for group in ordered]


def _one(group: Sequence[Finding]) -> Finding:
    names = [finding.contestant for finding in group if finding.contestant]
    evidence: dict[str, list[str]] = {}
    for finding in group:
        evidence.setdefault(finding.evidence, []).append(finding.contestant or "")
    texts = [f"{listed(whose)}: {text}" if any(whose) else text for text, whose in evidence.items()]
    commands = dict.fromkeys(finding.command for finding in group if finding.command)
    return replace(
        group[0],
        contestant=listed(names) or None,
        evidence=group[0].evidence if len(texts) == 1 else "; ".join(texts),
        command="\n".join(commands) or None,
    )


def unmeasurable(comparison: Comparison, split: str) -> str | None:
    """Return why a split's rows cannot measure quality, or None.

    A finding reports it. Files written before have none, so that the labels of their rows are looked at too.
    """
    for finding in comparison.findings:
        if split in finding.splits:
            return finding.evidence
    targets = {e.row: e.target for e in comparison.examples if e.split == split and e.target is not None}
    if len(targets) < 2 or comparison.study.task not in ("", "classification"):
        return None
    label, count = Counter(targets.values()).most_common(1)[0]
    if count < SAME * len(targets):
        return None
    names = comparison.study.labels or []
    name = f"'{names[label]}'" if label < len(names) else f"label {label}"
    return f"{count} of {len(targets)} {split} rows ask for {name}"
