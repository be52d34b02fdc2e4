"""Real steps, timed before anything is trained.

A step is made by the training loop itself, on a batch of mean size, after a step of one row that warms
the machine up; every trained number is put back afterwards. A cache on disk is timed from memory, where
the system keeps what it has read as long as there is room. What is quick is timed up to five times,
and the median taken, for another process may be busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from .data.encode import Example
from .deciding import optimization
from .errors import SoftPromptError
from .learner import Learner
from .order import Order, row_lengths
from .prepare import Prepared, open_caches
from .steps import Part, Steps
from .train import DevScore, Optimization, fit_together, named_parameters

REPEATS, PATIENCE = 5, 3.0  # times something is timed, and seconds after which once more is too much


def median_seconds(work: Callable[[], Any]) -> float:
    """Of doing it."""
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < PATIENCE:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


def step_seconds(prepared: Prepared, rows: Sequence[Example], repeats: int = REPEATS) -> float:
    """Of one step over `rows`, computed as the plan says. What is trained is left as it was."""
    prepared = replace(prepared, train=list(rows))
    (cache,), prepared = open_caches(in_memory(prepared), [rows])
    parameters = named_parameters(prepared.lm, prepared.method)
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    steps = Steps(prepared.lm, [Part.of(prepared)], cache)
    whole = list(range(len(rows)))
    ends: list[float] = []
    how = replace(optimization(prepared.recipe), steps=1 + repeats, patience=None)
    try:
        fit_together(
            [Learner(parameters, row_lengths(rows), lambda: DevScore((0.0,), "", 0.0), how)],
            lambda _: steps.backward([(0, whole if ends else whole[:1])]),
            on_event=lambda event: ends.append(time.perf_counter()),
            should_stop=lambda: len(ends) > 1 and ends[-1] - ends[0] > PATIENCE,
        )
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])
                parameter.grad = None
    if len(ends) < 2:
        raise SoftPromptError(
            f"the loss of the first step is not finite (lr={how.lr:g})",
            why="the learning rate is too large, or the start is bad",
            fix=f"train.lr={how.lr / 10:.1e}, or leave train.lr and method.init out for the defaults",
        )
    return median(later - earlier for earlier, later in pairwise(ends))


def in_memory(prepared: Prepared) -> Prepared:
    """`prepared` with all that its plan keeps kept in memory: for a few rows, without touching the disk."""
    chosen = prepared.plan
    if chosen.mode == "cached-disk":
        chosen = replace(chosen, mode="cached-ram", folder=None)
    if chosen.features is not None and chosen.features.where == "disk":
        chosen = replace(chosen, features=replace(chosen.features, where="ram", folder=None))
    return replace(prepared, plan=chosen)


def typical_batch(examples: Sequence[Example], how: Optimization) -> list[Example]:
    """The batch of the first epoch whose padded size is nearest the mean."""
    lengths = row_lengths(examples, how.batch_tokens)
    batches = Order(lengths, how.batch_size, how.seed, how.batch_tokens).epoch(0)
    padded = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    mean = sum(padded) / len(padded)
    chosen = min(zip(batches, padded, strict=True), key=lambda pair: abs(pair[1] - mean))[0]
    return [examples[i] for i in chosen]


def spread(examples: Sequence[Example], number: int) -> list[Example]:
    """`number` examples spread over the lengths that occur."""
    ordered = sorted(examples, key=lambda e: len(e.input_ids))
    take = min(number, len(ordered))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * take)] for i in range(take)]
