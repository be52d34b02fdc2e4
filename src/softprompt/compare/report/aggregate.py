"""Means over seeds: what a contestant scored and what it cost. Nothing else is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...page.numbers import unit
from .schema import Comparison, Score, Trial


@dataclass(frozen=True)
class Quality:
    """A metric's mean over seeds. The interval is the one over all seeds where the comparison gives it,
    otherwise it reaches from the lowest bound of a seed to the highest."""

    value: float
    low: float | None
    high: float | None
    n: int | None
    seeds: tuple[float, ...]


def quality(comparison: Comparison, split: str, metric: str | None = None) -> dict[str, Quality]:
    """Each contestant's quality on a split, in the study's order; those without a score are left out."""
    metric = metric or comparison.study.metric
    result = {}
    for contestant in comparison.study.contestants:
        scores = [s for s in comparison.scores if s.contestant == contestant.name and s.split == split]
        estimate = _pooled(scores, metric)
        if estimate is not None:
            result[contestant.name] = estimate
    return result


def _pooled(scores: Sequence[Score], metric: str) -> Quality | None:
    measured = [(s.seed, s.metrics[metric]) for s in scores if metric in s.metrics]
    measured = [(seed, m) for seed, m in measured if m.get("value") is not None]
    if not measured:
        return None
    whole = [m for seed, m in measured if seed is None]
    single = [m for seed, m in measured if seed is not None]
    used = whole[:1] or single
    least, most = unit(metric).bounds  # two seeds that differ much give an interval beyond what can be
    bounds = [
        [min(max(m[side], least), most) for m in used if m.get(side) is not None]  # type: ignore[type-var]
        for side in ("low", "high")
    ]
    n = used[0].get("n")
    return Quality(
        value=mean(m["value"] for m in used),  # type: ignore[arg-type]
        low=min(bounds[0], default=None),  # type: ignore[type-var]
        high=max(bounds[1], default=None),  # type: ignore[type-var]
        n=None if n is None else int(n),
        seeds=tuple(m["value"] for m in single),  # type: ignore[misc]
    )


def costs(comparison: Comparison) -> dict[str, dict[str, float]]:
    """Each contestant's mean cost over its final trials that ended well (where there are none, over all)."""
    result = {}
    for contestant in comparison.study.contestants:
        done = [t for t in comparison.trials if t.contestant == contestant.name and t.status == "done"]
        final = [t for t in done if t.phase == "final"] or done
        keys = dict.fromkeys(key for trial in final for key in trial.cost)
        known = {key: _known(final, key) for key in keys}
        result[contestant.name] = {key: mean(values) for key, values in known.items() if values}
    for serving in comparison.servings:
        if serving.added_tokens is not None and serving.contestant in result:
            result[serving.contestant].setdefault("added_tokens", serving.added_tokens)
    return {name: cost for name, cost in result.items() if cost}


def _known(trials: Iterable[Trial], key: str) -> list[float]:
    return [value for trial in trials if (value := trial.cost.get(key)) is not None]


def mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)


def splits(comparison: Comparison) -> list[str]:
    """The splits that were scored, `test` first."""
    names = dict.fromkeys(score.split for score in comparison.scores)
    return sorted(names, key=lambda name: (name != "test", name != "unseen", name))


def main_split(comparison: Comparison) -> str:
    """The split that the answer is about."""
    return (splits(comparison) or ["test"])[0]
