"""Draws the scores of all methods together: how likely each is the best, whatever the pair.

Rows are drawn as for intervals, the same for all methods (`bootstrap.row_draws`), and an effect of seeds is
added to each method. The effects are independent normal numbers, scaled by how uncertain their variance is
(Student's t). Methods whose variance is the same estimate share that scale, and so do two methods alone,
with the degrees of freedom of Welch (1947). The difference of two methods alone is then drawn as
`significance.compare` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from softprompt.evaluation.stats.scores import Scores
from softprompt.evaluation.stats.variance import Noise, seed_noise

#: With two seeds the effect of seeds has no mean, and so losses would have none: a draw in a hundred is cut.
_CUT = (0.5, 99.5)
#: With fewer rows than these that differ from some other method's, rows that were not seen are added.
_RARE = 3.0


def joint_draws(
    of: Sequence[Scores], drawn_rows: np.ndarray, *, span: float = np.inf, seed: int = 0
) -> np.ndarray:
    """Add effects of seeds to values by drawn rows `[R, M]` (`bootstrap.row_draws`): each method's score.

    `span` is the largest difference of two scores. If it is finite, methods that agree on nearly all rows
    get the effect of rows that were not seen: drawing rows that agree would say that they are equal.
    """
    drawn = drawn_rows + _seed_effects(of, len(drawn_rows), seed)
    return drawn + _unseen_rows(of, len(drawn_rows), span, seed) if np.isfinite(span) else drawn


def _unseen_rows(of: Sequence[Scores], resamples: int, span: float, seed: int) -> np.ndarray:
    """Draw the effects `[R, M]` of rare rows in either direction: rates of none seen, after Jeffreys."""
    by_row = np.stack([scores.values.mean(axis=0) for scores in of])  # [M, N]
    differ = np.abs(by_row[:, None] - by_row[None]).sum(axis=2) / span  # [M, M]
    np.fill_diagonal(differ, np.inf)
    rng = np.random.default_rng((seed, 4))
    gains, losses = rng.gamma(0.5, size=(2, resamples, len(of)))
    return np.where(differ.min(axis=1) < _RARE, gains - losses, 0.0) * span / of[0].rows


def _seed_effects(of: Sequence[Scores], resamples: int, seed: int) -> np.ndarray:
    """Draw the effects of seeds `[R, M]`; 0 for a method with one seed or none."""
    rng, rows = np.random.default_rng((seed, 3)), of[0].rows
    effects = np.zeros((resamples, len(of)))
    known = {m: part for m, part in enumerate(seed_noise(of)) if part is not None}
    _, welch = Noise(0.0, tuple(known.values())).of_seeds(rows)
    scales: dict[float, np.ndarray] = {}
    for m, part in known.items():
        df = float(welch) if len(known) == 2 else part.df
        if df not in scales:
            scales[df] = np.sqrt(df / rng.chisquare(df, resamples))
        drawn = rng.standard_normal(resamples) * scales[df] * np.sqrt(part.seed / part.seeds)
        effects[:, m] = np.clip(drawn, *np.percentile(drawn, _CUT))
    return effects
