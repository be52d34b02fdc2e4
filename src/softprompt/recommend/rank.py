"""Orders the methods, each with the evidence for and against it, and names those that are excluded.

How they are ordered. A rule excludes a method (a requirement is not met, or the model cannot do it) or states
a preference between methods, with its source. The preferences on quality are taken one after another, those
that were measured on more data sets first, and each with what follows from it (A over B and B over C: A over
C). A preference that contradicts an earlier one is dropped. This is Tideman's ranked pairs (1987), with data
sets instead of votes. A method's net is the number of methods that it is then preferred to, less the number
of those preferred to it. The methods are ordered by their net on quality; where that is equal, by their net
on cost, found the same way. Where both are equal nothing is known that separates the methods: they share a
place. So no rule has a weight that somebody chose, and a cost never outweighs a difference in quality that
was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .candidates import CANDIDATES, MethodChoice
from .requirements import Needs
from .rules.registry import COST, QUALITY, RULES, Rule


@dataclass(frozen=True)
class Ranked:
    """A method that is not excluded. Methods with the same `place` (from 1) are not separated by evidence."""

    candidate: MethodChoice
    place: int
    fired: tuple[Rule, ...]  # in the order of the registry

    @property
    def reasons_for(self) -> tuple[Rule, ...]:
        """Return the rules that prefer it to others, the best evidence first."""
        return tuple(r for r in self.fired if r.over)

    @property
    def reasons_against(self) -> tuple[Rule, ...]:
        """Return the rules that prefer others to it, the best evidence first."""
        return tuple(r for r in self.fired if r.under)

    @property
    def sentence(self) -> str:
        """Return the first reason for it, else the first against it, else what it is."""
        reasons = self.reasons_for or self.reasons_against
        return reasons[0].says if reasons else self.candidate.says


@dataclass(frozen=True)
class Excluded:
    """A method that cannot be used, and why."""

    candidate: MethodChoice
    rule: Rule
    reason: str


@dataclass(frozen=True)
class Ranking:
    """The ranking has every method, ranked or excluded."""

    ranked: tuple[Ranked, ...]
    excluded: tuple[Excluded, ...]

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return every rule that applied, once."""
        fired = [rule for item in self.ranked for rule in item.fired]
        return tuple({rule.name: rule for rule in [*fired, *(out.rule for out in self.excluded)]}.values())


def rank(needs: Needs, *, candidates: Mapping[str, MethodChoice] = CANDIDATES) -> Ranking:
    """Order the methods by the rules that apply to these needs (see the module's docstring)."""
    fired = {name: [rule for rule in RULES.values() if rule.holds(name, needs)] for name in candidates}
    excluded = [
        Excluded(candidates[name], rule, _reason(rule, needs))
        for name, rules in fired.items()
        if (rule := next((rule for rule in rules if rule.excludes), None)) is not None
    ]
    left = [name for name in candidates if name not in {item.candidate.name for item in excluded}]
    nets = [
        _nets(left, [r for r in rules if any(r in fired[name] for name in left)]) for rules in (QUALITY, COST)
    ]
    score = {name: tuple(net[name] for net in nets) for name in left}
    order = sorted(
        left, key=lambda name: score[name], reverse=True
    )  # stable: ties keep the order of `candidates`
    ranked = [
        Ranked(candidates[name], 1 + sum(other > score[name] for other in score.values()), tuple(fired[name]))
        for name in order
    ]
    return Ranking(tuple(ranked), tuple(excluded))


def _nets(names: Sequence[str], rules: Iterable[Rule]) -> dict[str, int]:
    """Count the methods that each is preferred to, less those preferred to it; earlier rules win."""
    below: dict[str, set[str]] = {name: set() for name in names}
    for better, worse in (pair for rule in rules for pair in rule.preferences):
        if better in below and worse in below and better not in below[worse]:
            for name in names:
                if name == better or better in below[name]:
                    below[name] |= {worse, *below[worse]}
    return {name: len(below[name]) - sum(name in others for others in below.values()) for name in names}


def _reason(rule: Rule, needs: Needs) -> str:
    """The rule's sentence, with the reason that the model's probe found, where there is one."""
    measured = needs.limits.get("prefix") if rule.name == "no prefix on this model" else None
    return f"{rule.says}: {measured}" if measured else rule.says
