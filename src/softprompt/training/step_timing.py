"""Real steps are timed before anything is trained.

A step is made by the training loop itself, on a batch of mean size, after a step of one row that warms
the machine up; every trained number is restored afterwards. A cache on disk is timed from memory, where
the system keeps the files that it has read as long as there is room. Quick work is timed up to five times,
and the median is used, since another process may be busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ..data.example import Example
from ..errors import SoftPromptError
from ..evaluation.records import DevScore
from .caches import leading, open_caches
from .decisive import optimization
from .learner import Learner, Optimization
from .loop import fit_together
from .prepare import Prepared
from .references import without_references
from .sampler import BatchSampler, row_lengths
from .step import StepPart, TrainStep, held_for
from .trained import named_parameters

REPEATS, PATIENCE = 5, 3.0  # at most so many timings, and none begins after so many seconds


def median_seconds(work: Callable[[], Any]) -> float:
    """Time `work` several times and return the median of the seconds."""
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < PATIENCE:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


def step_seconds(prepared: Prepared, rows: Sequence[Example], repeats: int = REPEATS) -> float:
    """Time one step over `rows`, computed as the plan says. Trained parameters are restored."""
    return round_seconds([replace(prepared, train=list(rows))], repeats)


def round_seconds(runs: Sequence[Prepared], repeats: int = REPEATS) -> float:
    """Time one step of each run over all its `train` rows, side by side. Trained parameters are restored.

    Raises SoftPromptError where no loss is finite.
    """
    runs = [without_references(run) for run in runs]
    first = leading(runs)
    (cache,), _ = open_caches(in_memory(first), [[row for run in runs for row in run.train]])
    parameters = [named_parameters(run.lm, run.method) for run in runs]
    kept = [{name: p.detach().clone() for name, p in named.items()} for named in parameters]
    steps = TrainStep(first.lm, [StepPart.of(run) for run in runs], cache)
    whole = [run.step_rows(0, range(len(run.train))) for run in runs]
    ends: list[float] = []
    hows = [replace(optimization(run.recipe), steps=1 + repeats, patience=None) for run in runs]

    def backward(chosen: Sequence[tuple[int, list[int]]]) -> list[Tensor]:
        warm = len(ends) >= len(runs)
        return steps.backward([(i, whole[i] if warm else whole[i][:1]) for i, _ in chosen])

    try:
        with held_for(runs):
            fit_together(
                [
                    Learner(named, row_lengths(run.train), lambda: DevScore((0.0,), "", 0.0), config)
                    for named, run, config in zip(parameters, runs, hows, strict=True)
                ],
                backward,
                groups=steps.groups,
                on_event=lambda event: ends.append(time.perf_counter()),
                should_stop=lambda: len(ends) >= 2 * len(runs) and ends[-1] - ends[len(runs) - 1] > PATIENCE,
            )
    finally:
        with torch.no_grad():
            for named, before in zip(parameters, kept, strict=True):
                for name, parameter in named.items():
                    parameter.copy_(before[name])
                    parameter.grad = None
    rounds = ends[len(runs) - 1 :: len(runs)]
    if len(rounds) < 2:
        lr = hows[0].lr
        raise SoftPromptError(
            f"the loss of the first step is not finite (lr={lr:g})",
            why="the learning rate is too large, or the start is bad",
            fix=f"train.lr={lr / 10:.1e}, or leave train.lr and method.init out for the defaults",
        )
    return median(later - earlier for earlier, later in pairwise(rounds))


def in_memory(prepared: Prepared) -> Prepared:
    """Move all caches of the plan to memory: for a few rows, without using the disk."""
    chosen = prepared.plan
    if chosen.mode == "cached-disk":
        chosen = replace(chosen, mode="cached-ram", folder=None)
    if chosen.features is not None and chosen.features.where == "disk":
        chosen = replace(chosen, features=replace(chosen.features, where="ram", folder=None))
    return replace(prepared, plan=chosen)


def typical_batch(examples: Sequence[Example], optimization: Optimization) -> list[Example]:
    """Return the batch of the first epoch whose padded size is nearest the mean."""
    tokens = optimization.batch_tokens
    lengths = row_lengths(examples, tokens)
    batches = BatchSampler(lengths, optimization.batch_size, optimization.seed, tokens).epoch(0)
    padded = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    mean = sum(padded) / len(padded)
    chosen = min(zip(batches, padded, strict=True), key=lambda pair: abs(pair[1] - mean))[0]
    return [examples[i] for i in chosen]


def spread(examples: Sequence[Example], number: int) -> list[Example]:
    """Choose `number` examples, spread over the lengths that occur."""
    ordered = sorted(examples, key=lambda e: len(e.input_ids))
    take = min(number, len(ordered))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * take)] for i in range(take)]
