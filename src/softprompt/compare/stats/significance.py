"""Methods compared in pairs: difference, interval, corrected p value, and what could have been shown.

A verdict rests on rows and seeds alike: another draw of the test rows, and another training run, should come
to the same. With one seed each it holds for these trained prompts, and says so. docs/measures.md explains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from softprompt.compare.stats import bootstrap, simultaneous
from softprompt.compare.stats.power import rows_needed, seeds_needed, smallest_shown
from softprompt.compare.stats.scores import Scores
from softprompt.compare.stats.variance import Noise, noise, seed_noise
from softprompt.errors import SoftPromptError, unknown


@dataclass(frozen=True)
class Comparison:
    """`difference` is a − b in the metric's unit, with its interval.

    `p_adjusted`, `significant` and the interval are corrected for all pairs compared together: the interval
    leaves out 0 exactly where the difference is significant, and `level` is its own confidence (0.95 of one
    pair). `alone_low` and `alone_high` are the 95 % interval of this pair by itself. `n_seeds` is the smaller
    number of seeds of the two: 0 where no seed varies either. `detectable` is the smallest difference that so
    many rows and seeds show at 80 % power at the strictest level of the correction. It is None where the two
    scored the same on every row, which tells nothing of noise, and where it would be larger than the metric
    can have: `shows_any` is then False, unless this one was shown. `rows_needed` and `seeds_needed` would
    show a difference of the size seen, each by itself, or None where no number would.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    level: float
    alone_low: float
    alone_high: float
    p: float
    p_adjusted: float
    significant: bool
    n_rows: int
    n_seeds: int
    detectable: float | None
    shows_any: bool
    rows_needed: int | None
    seeds_needed: int | None

    def sentence(self, *, scale: float = 100, unit: str = "points", higher_is_better: bool = True) -> str:
        """The verdict in words; numbers are times `scale`, so that an accuracy of 0.01 is a point."""
        seen = [_number(scale * x) for x in (self.difference, self.low, self.high)]
        p = "p < 0.001" if self.p_adjusted < 0.001 else f"p = {self.p_adjusted:.2g}"
        if self.significant:
            ahead = (self.difference > 0) == higher_is_better
            better, worse = (self.a, self.b) if ahead else (self.b, self.a)
            size = _number(scale * abs(self.difference))
            verdict = f"{better} is better than {worse} by {size} {unit}"
            said = f"{verdict} ({self.a} − {self.b}: interval {seen[1]} … {seen[2]}, corrected {p})"
        else:
            shown = f"({seen[0]} {unit}, interval {seen[1]} … {seen[2]})"
            said = f"no difference was shown between {self.a} and {self.b} {shown}; "
            said += ("" if self.shows_any else "these rows cannot show any; ") + self._more()
        if self.n_seeds == 1:
            said += "; with one seed this is about these trained prompts, not about the methods"
        return said

    def _more(self) -> str:
        """What could show a difference of the size seen."""
        if self.difference == 0:
            return "they scored the same"
        counts = [(self.rows_needed, "rows"), (self.seeds_needed, "seeds")]
        ways = [f"{_about(count)} {what}" for count, what in counts if count is not None]
        if not ways:
            seeds = " nor a hundred seeds" if self.n_seeds > 1 else ""
            return f"{'neither' if seeds else 'not even'} a million rows{seeds} could show one of that size"
        only = "" if self.rows_needed is not None else ", more rows alone could not"
        return f"about {' or '.join(ways)} could show one of that size{only}"


@dataclass(frozen=True)
class Summary:
    """A method's mean over rows and seeds with its 95 % interval, and the spread of its seeds.

    `seed_sd` is the standard deviation of the seeds' values (ddof 1), None with fewer than two.
    """

    name: str
    mean: float
    seed_sd: float | None
    low: float
    high: float
    n_rows: int
    n_seeds: int


def compare(
    of: Sequence[Scores],
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    alpha: float = 0.05,
    correction: str = "holm",
    resamples: int = 10_000,
    seed: int = 0,
    span: float = np.inf,
) -> list[Comparison]:
    """Every pair of the methods, or the `pairs` of their indices, corrected together.

    `span` is the largest difference that two scores can have: 1 of shares, infinite of perplexities.
    Raises SoftPromptError for methods with different numbers of rows, or an unknown correction.
    """
    _same_rows(of)
    pairs = list(combinations(range(len(of)), 2)) if pairs is None else list(pairs)
    if correction not in CORRECTIONS:
        raise unknown("correction", correction, CORRECTIONS)
    if not pairs:
        return []
    resamples = max(resamples, round(2 * len(pairs) / alpha))  # a p value can be below alpha / pairs
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    by_row = np.stack([scores.values.mean(axis=0) for scores in of])  # [M, N]
    difference = (by_row[a] - by_row[b]).mean(axis=1)  # [P]
    of_seeds = seed_noise(of)
    noises = [noise((of[i], of[j]), (of_seeds[i], of_seeds[j])) for i, j in pairs]
    seeds = _seeds(noises, of[0].rows, resamples, seed)  # [R, P]
    # the last column, of a 1 in every row, holds the means of the signs themselves
    drawn = np.vstack([by_row[a] - by_row[b], np.ones(of[0].rows)])
    flips = bootstrap.sign_flips(drawn, resamples, seed)
    p = bootstrap.p_values(difference, flips[:, :-1] + seeds)
    adjusted = CORRECTIONS[correction](p)
    level = simultaneous.levels(p, adjusted, alpha)
    low, high = simultaneous.intervals(difference, flips[:, :-1], flips[:, -1], seeds, level, span)
    values = bootstrap.row_draws(of, resamples, seed)
    alone = np.percentile(values[:, a] - values[:, b] + seeds, [2.5, 97.5], axis=0)
    strictest = alpha / len(pairs)
    smallest = [smallest_shown(one, of[0].rows, strictest, span) for one in noises]
    return [
        Comparison(
            a=of[i].name,
            b=of[j].name,
            difference=float(difference[k]),
            low=float(low[k]),
            high=float(high[k]),
            level=float(1 - level[k]),
            alone_low=float(alone[0, k]),
            alone_high=float(alone[1, k]),
            p=float(p[k]),
            p_adjusted=float(adjusted[k]),
            significant=bool(adjusted[k] <= alpha),
            n_rows=of[i].rows,
            n_seeds=min((s.seeds for s in (of[i], of[j]) if not s.fixed), default=0),
            detectable=smallest[k] or None,
            shows_any=smallest[k] is not None or bool(adjusted[k] <= alpha),
            rows_needed=rows_needed(noises[k], float(difference[k]), alpha=strictest),
            seeds_needed=seeds_needed(noises[k], of[i].rows, float(difference[k]), alpha=strictest),
        )
        for k, (i, j) in enumerate(pairs)
    ]


def summarise(of: Sequence[Scores], *, resamples: int = 10_000, seed: int = 0) -> list[Summary]:
    """Each method by itself. Raises SoftPromptError for methods with different numbers of rows."""
    _same_rows(of)
    rows = of[0].rows
    noises = [noise((scores,), (seeds,)) for scores, seeds in zip(of, seed_noise(of), strict=True)]
    seeds = _seeds(noises, rows, resamples, seed)
    low, high = np.percentile(bootstrap.row_draws(of, resamples, seed) + seeds, [2.5, 97.5], axis=0)
    summaries = []
    for m, scores in enumerate(of):
        by_seed = scores.values.mean(axis=1)
        sd = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
        mean, bounds = float(by_seed.mean()), (float(low[m]), float(high[m]))
        summaries.append(Summary(scores.name, mean, sd, *bounds, n_rows=rows, n_seeds=scores.seeds))
    return summaries


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p values that bound the chance of any false claim (Holm 1979)."""
    p = np.asarray(p, dtype=np.float64)
    order, m = np.argsort(p), len(p)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(1, np.maximum.accumulate((m - np.arange(m)) * p[order]))
    return adjusted


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Adjusted p values that bound the expected share of false claims (Benjamini & Hochberg 1995)."""
    p = np.asarray(p, dtype=np.float64)
    order, m = np.argsort(p)[::-1], len(p)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum.accumulate(np.minimum(1, m / (m - np.arange(m)) * p[order]))
    return adjusted


CORRECTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "holm": holm,
    "benjamini-hochberg": benjamini_hochberg,
}


def _seeds(noises: Sequence[Noise], rows: int, resamples: int, seed: int) -> np.ndarray:
    variance, df = (np.array(x) for x in zip(*(n.of_seeds(rows) for n in noises), strict=True))
    return bootstrap.seed_draws(variance, df, resamples, seed)


def _same_rows(of: Sequence[Scores]) -> None:
    counts = {scores.name: scores.rows for scores in of}
    if len(set(counts.values())) > 1:
        raise SoftPromptError(
            f"methods were scored on different numbers of rows: {counts}",
            why="they are compared row by row",
            fix="score all on the same rows, in the same order",
        )
    if not of:
        raise SoftPromptError("no methods to compare")


def _number(x: float) -> str:
    return f"{x:.1f}".replace("-0.0", "0.0").replace("-", "−")


def _about(count: int) -> str:
    """Two digits, rounded up: more is not known of it."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // unit) * unit:,}"
