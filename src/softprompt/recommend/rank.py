"""The contestants in order, each with what speaks for and against it, and those that are out.

Points of the rules that fire are added up; ties keep the order of `CONTESTANTS`. This file knows no rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .candidates import CONTESTANTS, MethodChoice
from .requirements import Needs
from .rules.registry import RULES, Rule


@dataclass(frozen=True)
class Ranked:
    """A contestant that can be had."""

    contestant: MethodChoice
    score: int
    fired: tuple[Rule, ...]  # the weightiest first, then those about the fewest

    @property
    def reasons_for(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.fired if rule.points > 0)

    @property
    def reasons_against(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.fired if rule.points < 0)

    @property
    def sentence(self) -> str:
        """What weighs most, in one line."""
        weighing = self.reasons_against if self.score < 0 else self.reasons_for
        return weighing[0].says if weighing else self.contestant.says


@dataclass(frozen=True)
class Excluded:
    """A contestant that cannot be had, and why."""

    contestant: MethodChoice
    rule: Rule
    reason: str


@dataclass(frozen=True)
class Ranking:
    """All contestants."""

    ranked: tuple[Ranked, ...]
    excluded: tuple[Excluded, ...]

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule that fired, once."""
        fired = [rule for item in self.ranked for rule in item.fired]
        return tuple({rule.name: rule for rule in [*fired, *(out.rule for out in self.excluded)]}.values())


def rank(
    needs: Needs,
    *,
    contestants: Mapping[str, MethodChoice] = CONTESTANTS,
    rules: Iterable[Rule] = tuple(RULES.values()),
) -> Ranking:
    """Rank them by the rules that fire for these needs."""
    ranked, excluded = [], []
    for name, contestant in contestants.items():
        fired = [rule for rule in rules if rule.holds(name, needs)]
        out = next((rule for rule in fired if rule.excludes), None)
        if out is not None:
            excluded.append(Excluded(contestant, out, _reason(out, needs)))
            continue
        fired.sort(key=lambda rule: (-abs(rule.points), len(rule.about)))
        ranked.append(Ranked(contestant, sum(rule.points for rule in fired), tuple(fired)))
    ranked.sort(key=lambda item: -item.score)
    return Ranking(tuple(ranked), tuple(excluded))


def _reason(rule: Rule, needs: Needs) -> str:
    """The rule's sentence, with the model's own words where it has some."""
    measured = needs.limits.get("prefix") if rule.name == "no prefix on this model" else None
    return f"{rule.says}: {measured}" if measured else rule.says
