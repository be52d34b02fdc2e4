"""Numbers as people read them: shares in percent, differences in points, seconds, bytes, counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Metrics from 0 to 1 that are written in percent, and those from 0 to 100 that are written in points.
SHARES = {"accuracy", "macro_f1", "tag_accuracy", "tag_macro_f1", "exact_match", "rouge_l"}
SHARES |= {"preference_accuracy", "agreement"}
SHARES |= {"mrr", "ndcg_at_10", *(f"recall_at_{k}" for k in (1, 5, 10, 100))}
POINTS = {"bleu", "chrf"}
_LABELS = {
    "macro_f1": "macro F1",
    "tag_accuracy": "tag accuracy",
    "tag_macro_f1": "tag macro F1",
    "exact_match": "exact match",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "bleu": "BLEU",
    "mse": "mean squared error",
    "pearson": "Pearson's r",
    "spearman": "Spearman's ρ",
    "mrr": "MRR",
    "ndcg_at_10": "nDCG@10",
    **{f"recall_at_{k}": f"recall@{k}" for k in (1, 5, 10, 100)},
}
#: Of the other metrics, those that have a least and a most.
_LIMITS = {"pearson": (-1.0, 1.0), "spearman": (-1.0, 1.0)}
MISSING = "–"


@dataclass(frozen=True)
class Unit:
    """Writes a metric's values."""

    name: str
    label: str
    scale: float = 1.0
    suffix: str = ""
    points: str = ""
    decimals: int | None = None
    limits: tuple[float, float] | None = None

    def bare(self, value: float | None) -> str:
        """The number alone, scaled."""
        if value is None:
            return MISSING
        if self.decimals is None:
            return plain(value)
        return minus(f"{value * self.scale:.{self.decimals}f}")

    def value(self, value: float | None) -> str:
        """Write as `84.1 %`."""
        return MISSING if value is None else self.bare(value) + self.suffix

    def difference(self, value: float | None) -> str:
        """Write as `1.9 points`."""
        return MISSING if value is None else self.bare(value) + self.points

    def interval(self, low: float | None, high: float | None) -> str:
        """` (81.6 … 86.4)`, or nothing where it is not known or has no end."""
        if low is None or high is None or math.isinf(low) or math.isinf(high):
            return ""
        return f" ({self.bare(low)}\u00a0…\u00a0{self.bare(high)})"

    def tick(self, value: float | None) -> str:
        """A round number on an axis, without needless zeros."""
        return MISSING if value is None else tick(value * self.scale)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most that the metric can be."""
        return self.limits or ((0.0, 1.0) if self.scale == 100 else (-math.inf, math.inf))

    @property
    def span(self) -> float:
        """The largest difference that two values can have."""
        return self.bounds[1] - self.bounds[0]

    @property
    def axis(self) -> str:
        """Return the metric's name with its unit."""
        return self.label + (" (%)" if self.suffix else "")


def unit(metric: str) -> Unit:
    """Return the unit of the metric of this name."""
    label = _LABELS.get(metric, metric.replace("_", " "))
    if metric in SHARES:
        return share(metric, label)
    if metric in POINTS:
        return Unit(metric, label, points=" points", decimals=1, limits=(0.0, 100.0))
    return Unit(metric, label, limits=_LIMITS.get(metric))


def share(name: str, label: str) -> Unit:
    """Return the unit of a share from 0 to 1, in percent."""
    return Unit(name, label, scale=100, suffix="\u00a0%", points=" points", decimals=1)


def tick(value: float) -> str:
    """A round number as short as it goes."""
    return minus(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}")


def plain(value: float | None) -> str:
    """Write about three digits."""
    if value is None:
        return MISSING
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e6 or size < 1e-3:
        return minus(f"{value:.2g}")
    return minus(f"{value:,.0f}" if size >= 1000 else f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}")


def minus(text: str) -> str:
    """Write a number with a true minus sign, and none before zero."""
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]
    return text.replace("-", "−") if text.startswith("-") else text


def count(value: float | None) -> str:
    """Write as `1,192,896`."""
    return MISSING if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """`1.2 M`, for counts; six digits at most."""
    if value is None:
        return MISSING
    for size, name in ((1e18, " E"), (1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:.3g}"


def about(value: float) -> str:
    """Write two digits, as an estimate has no more."""
    digits = max(0, math.floor(math.log10(abs(value))) - 1) if value else 0
    return f"{round(value, -digits):,.0f}"


def size(value: float | None) -> str:
    """Write as `1.50 MB`."""
    if value is None:
        return MISSING
    for name in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.3g} {name}"
        value /= 1000
    return f"{value:.3g} TB"


def seconds(value: float | None) -> str:
    """Write as `3 min 20 s`."""
    if value is None:
        return MISSING
    if value < 1:
        return f"{1000 * value:.0f} ms" if value else "0 s"
    if value < 99.5:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def p_value(value: float | None) -> str:
    """Write as `0.012` or `< 0.001`."""
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def probability(value: float) -> str:
    """Write as `63 %`; what was drawn every time, or never, is not certain."""
    if not 0.005 <= value < 0.995:
        return "over 99\u00a0%" if value > 0.5 else "under 1\u00a0%"
    return f"{100 * value:.0f}\u00a0%"


def listed(names: list[str]) -> str:
    """Write as `A, B and C`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def several(number: int, noun: str, many: str = "") -> str:
    """Write as `1 seed` or `3 seeds`."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"
