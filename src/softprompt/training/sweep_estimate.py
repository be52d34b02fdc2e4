"""How long runs side by side will take, said before the first of their steps.

As `pricing` does for one run: a round of steps and an evaluation are timed here and now, the rest is
counting. What was done before is left out. Where nobody looks on, nothing is timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .._system.progress import duration, follower, say
from ..errors import SoftPromptError
from .caches import leading
from .checkpoint import saved_step
from .decisive import optimization
from .estimate import cache_seconds, evaluating
from .output_folder import of_this_run
from .prepare import Prepared
from .step_timing import round_seconds, typical_batch

REPEATS = 2  # rounds that are timed, after one of a row each


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a run."""

    run: Prepared
    steps: int
    evaluations: int  # of the dev rows, while it trains


def say_ahead(runs: Sequence[Prepared], *, restart: bool = False, overwrite: bool = False) -> None:
    """Tell whoever follows how long it will take, where there is something left to do."""
    left = [] if follower() is None else left_of(runs, restart=restart, overwrite=overwrite)
    if not left:
        return
    try:
        seconds = seconds_of(left)
    except SoftPromptError:
        return  # no loss is finite: the run says so of each
    steps = sum(one.steps for one in left)
    say(f"it will take about {duration(seconds)} on this machine, as busy as it is now: {steps} steps in all")


def left_of(runs: Sequence[Prepared], *, restart: bool, overwrite: bool) -> list[Left]:
    """Of the runs that are not finished."""
    found = []
    for run in runs:
        folder, how = Path(run.recipe.output), optimization(run.recipe)
        if not overwrite and of_this_run(folder, run.identity()) is not None:
            continue
        done = 0 if restart or overwrite else saved_step(folder / "checkpoint")
        found.append(Left(run, max(0, how.steps - done), how.evaluations_after(done)))
    return found


def seconds_of(left: Sequence[Left]) -> float:
    """Of all that is left. Raises SoftPromptError where no loss is finite."""
    runs = [
        replace(one.run, train=typical_batch(one.run.train, optimization(one.run.recipe))) for one in left
    ]
    seconds = round_seconds(runs, REPEATS) / len(left) * sum(one.steps for one in left)
    first = leading(runs)
    if tokens := first.plan.prefill_tokens:
        by_rows = {one.run.data_fingerprint: one.run.plan.prefill_tokens for one in left}
        seconds += cache_seconds(first, first.train) * sum(by_rows.values()) / tokens
    measured: dict[str, tuple[float, float]] = {}
    for one in left:
        plan = one.run.plan.mode
        if plan not in measured:
            measured[plan] = evaluating(one.run)
            scored, written = measured[plan]
            seconds += scored + written  # the plain model's
        scored, written = measured[plan]
        seconds += one.evaluations * scored + written
    return seconds
