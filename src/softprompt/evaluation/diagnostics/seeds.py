"""The best candidate is compared with the next by how much seeds differ."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from .run import Finding, Run

LEVEL = 0.05
FEWEST = 2  # seeds of each


def within_seed_noise(run: Run) -> Finding | None:
    """Report where Welch's t-test over seeds does not separate the two best of `run.seeds`."""
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
    summary = f"the difference between {first} and {second} is no larger than differences between seeds"
    fix = run.search("seed=0,1,2,3,4,5,6,7")
    return Finding("note", summary, f"{shown}; Welch's t-test over seeds: p = {p:.2g}", fix)


def _p(a: Sequence[float], b: Sequence[float]) -> float:
    import warnings

    from scipy.stats import ttest_ind

    if stdev(a) == stdev(b) == 0:  # the test would divide by zero
        return 1.0 if mean(a) == mean(b) else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # seeds that differ by rounding alone
        result: Any = ttest_ind(a, b, equal_var=False)
    return float(result.pvalue)
