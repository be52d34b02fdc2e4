"""Whether the best is better than the next by more than seeds differ among themselves."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from .run import Finding, Run

LEVEL = 0.05
FEWEST = 2  # seeds of each


def within_seed_noise(run: Run) -> Finding | None:
    """Welch's t-test over seeds between the two best of `run.seeds`; silent where it tells them apart."""
    sign = 1 if run.higher_is_better else -1
    known = {name: scores for name, scores in run.seeds.items() if len(scores) >= FEWEST}
    if len(known) < 2:
        return None
    first, second = sorted(known, key=lambda name: -sign * mean(known[name]))[:2]
    a, b = known[first], known[second]
    p = _p(a, b)
    if p < LEVEL:
        return None
    shown = ", ".join(
        f"{name} {mean(s):.3g} ± {stdev(s):.2g} ({len(s)} seeds)" for name, s in ((first, a), (second, b))
    )
    what = f"the difference between {first} and {second} is within what seeds differ by"
    mend = run.search("seed=0,1,2,3,4,5,6,7")
    return Finding("note", what, f"{shown}; Welch's t-test over seeds: p = {p:.2g}", mend)


def _p(a: Sequence[float], b: Sequence[float]) -> float:
    import warnings

    from scipy.stats import ttest_ind

    if stdev(a) == stdev(b) == 0:  # the test has nothing to divide by
        return 1.0 if mean(a) == mean(b) else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # seeds that agree but for rounding
        found: Any = ttest_ind(a, b, equal_var=False)
    return float(found.pvalue)
