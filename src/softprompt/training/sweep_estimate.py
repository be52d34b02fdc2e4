"""The time that runs side by side will take is estimated before the first of their steps.

As in `estimate` for one run, a round of steps and an evaluation are timed, and the rest is counted. Finished
work is left out. Where no progress is shown, nothing is timed.
"""

from __future__ import annotations

import random
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
MOST = 64  # runs that are timed: some passes full; a round of a thousand would take minutes


@dataclass(frozen=True, slots=True)
class Left:
    """The work that is left of a run."""

    run: Prepared
    steps: int
    evaluations: int  # of the dev rows, while it trains


def say_ahead(runs: Sequence[Prepared], *, restart: bool = False, overwrite: bool = False) -> None:
    """Report to the follower of progress how long the runs will take, unless all are finished."""
    left = [] if follower() is None else left_of(runs, restart=restart, overwrite=overwrite)
    if not left:
        return
    try:
        seconds = seconds_of(left)
    except SoftPromptError:
        return  # no loss is finite: each run will report that
    steps = sum(part.steps for part in left)
    say(f"it will take about {duration(seconds)} on this machine, as busy as it is now: {steps} steps in all")


def left_of(runs: Sequence[Prepared], *, restart: bool, overwrite: bool) -> list[Left]:
    """List the work that is left of the runs that are not finished."""
    left = []
    for run in runs:
        folder, numbers = Path(run.recipe.output), optimization(run.recipe)
        if not overwrite and of_this_run(folder, run.identity()) is not None:
            continue
        done = 0 if restart or overwrite else saved_step(folder / "checkpoint")
        left.append(Left(run, max(0, numbers.steps - done), numbers.evaluations_after(done)))
    return left


def seconds_of(left: Sequence[Left]) -> float:
    """Predict the seconds of all that is left. Raises SoftPromptError where no loss is finite."""
    timed = left if len(left) <= MOST else random.Random(0).sample(list(left), MOST)
    runs = [
        replace(part.run, train=typical_batch(part.run.train, optimization(part.run.recipe)))
        for part in timed
    ]
    seconds = round_seconds(runs, REPEATS) / len(runs) * sum(part.steps for part in left)
    first = leading(runs)
    if tokens := first.plan.prefill_tokens:
        by_rows = {part.run.data_fingerprint: part.run.plan.prefill_tokens for part in left}
        seconds += cache_seconds(first, first.train) * sum(by_rows.values()) / tokens
    measured: dict[str, tuple[float, float]] = {}
    for part in left:
        plan = part.run.plan.mode
        if plan not in measured:
            measured[plan] = evaluating(part.run)
            scored, written = measured[plan]
            seconds += scored + written  # the plain model's
        scored, written = measured[plan]
        seconds += part.evaluations * scored + written
    return seconds
