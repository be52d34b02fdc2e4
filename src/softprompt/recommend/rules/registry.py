"""Lists all rules about which method suits what, each with its evidence and the limits of that.

The evidence is what others published or what this project measured; what nobody measured has no rule. `RULES`
is in the order in which `rank` takes the rules: exclusions, quality (measured on the most data sets first),
cost.
"""

from __future__ import annotations

from .base import ALL, TRAINED, Evidence, Rule
from .cost import COST_RULES
from .exclusions import EXCLUSIONS
from .quality import QUALITY_RULES

__all__ = ["COST", "QUALITY", "RULES", "Evidence", "Rule", "as_markdown"]

QUALITY = tuple(sorted(QUALITY_RULES, key=lambda rule: -rule.evidence.sets))
COST = COST_RULES
RULES: dict[str, Rule] = {rule.name: rule for rule in (*EXCLUSIONS, *QUALITY, *COST)}


def as_markdown() -> str:
    """Return the table of docs/choose.md."""
    lines = ["| when | about | effect | what | evidence | its limits |", "|---|---|---|---|---|---|"]
    for rule in RULES.values():
        proof = f"{rule.evidence.source}: {rule.evidence.figures}"
        if rule.evidence.command:
            proof += f" (`{rule.evidence.command}`)"
        cells = (
            rule.condition,
            named(rule.about),
            effect(rule),
            rule.says,
            proof,
            rule.evidence.limits or "–",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def effect(rule: Rule) -> str:
    """Return what the rule does to the methods that it is about, in words."""
    if rule.excludes:
        return "out"
    if rule.over:
        return f"above {named(rule.over)}"
    return f"below {named(rule.under)}" if rule.under else "remark"


def named(methods: tuple[str, ...]) -> str:
    """Return the methods' names; "all" means every method, and "trained" every trained one."""
    return {ALL: "all", TRAINED: "trained"}.get(methods) or ", ".join(methods)
