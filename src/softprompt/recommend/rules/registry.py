"""What is known about which method suits what, each rule with its evidence and the limits of that.

A rule gives points, or excludes, or only says something (no points). Points are a judgement of how much a
fact should weigh, not a measurement: 1 a hint, 2 measured once, 3 beyond doubt or by construction. The
evidence is what others published or what this project measured; what nobody measured has no rule.
"""

from __future__ import annotations

from .base import ALL, TRAINED, Evidence, Rule
from .cost import DEMANDS
from .exclusions import EXCLUSIONS
from .quality import OUTCOMES

__all__ = ["RULES", "Evidence", "Rule", "as_markdown"]

RULES: dict[str, Rule] = {rule.name: rule for rule in (*EXCLUSIONS, *OUTCOMES, *DEMANDS)}


def as_markdown() -> str:
    """The table of docs/choose.md."""
    lines = ["| when | about | points | what | evidence | its limits |", "|---|---|---|---|---|---|"]
    for rule in RULES.values():
        points = "out" if rule.excludes else f"{rule.points:+d}" if rule.points else "–"
        about = "all" if rule.about == ALL else "trained" if rule.about == TRAINED else ", ".join(rule.about)
        proof = f"{rule.evidence.source}: {rule.evidence.figures}"
        if rule.evidence.command:
            proof += f" (`{rule.evidence.command}`)"
        cells = (rule.condition, about, points, rule.says, proof, rule.evidence.limits or "–")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
