"""Measure how a cached step's time grows with the length of its inputs, and attention's part of it.

Attention is timed inside the step: its forward pass where the model calls it, its backward pass from
the gradient of its output to that of its queries. The rest should not grow; reading the rows from
the cache is shown separately.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from transformers import AttentionInterface

import softprompt
from softprompt.data.collate import collate
from softprompt.lm import attention
from softprompt.training.losses import next_token

from .line import Line
from .options import Options
from .ours import Ours, kept
from .rows import example

ROWS = 4  # a step
FLAT = 1.25  # the rest of a step may grow by a quarter
REPEATS = 5


def measure(options: Options) -> Iterator[Line]:
    """Measure a cached step without attention and the cache, against that at the shortest input."""
    for dtype in options.dtypes:
        lm = softprompt.load(options.model, dtype=dtype)
        # the lengths take turns, so that a machine that slows down does so for all of them
        sides = {length: side_of(lm, length) for length in options.lengths}
        durations: dict[int, list[tuple[float, float, float]]] = {length: [] for length in sides}
        for turn in range(-1, options.blocks * (1 if options.blocks == 1 else REPEATS)):
            for length, side in sides.items():
                times = timed(side)
                if turn >= 0:
                    durations[length].append(times)
        rest = {n: median(all_ - att - read for all_, att, read in times) for n, times in durations.items()}
        for length, times in durations.items():
            step, inside, read = (1000 * median(column) for column in zip(*times, strict=True))
            yield Line(
                "growth",
                f"{length:,} tokens × {ROWS} rows, {dtype}",
                1000 * rest[length],
                1000 * rest[options.lengths[0]],
                "ms/step",
                rest[length] / rest[options.lengths[0]],
                FLAT,
                at_most=True,
                note=f"whole step {step:.0f} ms, attention {inside:.0f}, reading the cache {read:.0f}",
            )


def side_of(lm: Any, length: int) -> Ours:
    """Build a prefix after one random input, which fills all rows of a batch."""
    draw = random.Random(length)
    size = lm.spec.vocab_size
    row = example([draw.randrange(size) for _ in range(length)], [draw.randrange(size)])
    return Ours(lm, "prefix-tuning", [row], "cached", kept(lm, [row]))


def timed(side: Ours) -> tuple[float, float, float]:
    """Time a step, its attention, and reading its rows from the cache, in seconds."""
    same = [0] * ROWS
    batch = collate([side.rows[i] for i in same], side.lm.device)
    side.method.zero_grad(set_to_none=True)
    with _attention_apart() as inside:
        started = time.perf_counter()
        context = side.cache.context(same)
        read = time.perf_counter() - started
        next_token(side.lm, side.method, batch, context).backward()
        step = time.perf_counter() - started
    return step, sum(inside), read


@contextmanager
def _attention_apart() -> Iterator[list[float]]:
    """Collect the seconds of every part of attention that runs inside."""
    inside: list[float] = []

    def clocked(module: Any, query: Any, *args: Any, **named: Any) -> Any:
        started = time.perf_counter()
        output, weights = attention.attend_sdpa(module, query, *args, **named)
        inside.append(time.perf_counter() - started)
        if output.requires_grad and query.requires_grad:
            begun: list[float] = []
            output.register_hook(lambda _: begun.append(time.perf_counter()))
            query.register_hook(lambda _: inside.append(time.perf_counter() - begun.pop()) if begun else None)
        return output, weights

    AttentionInterface.register(attention.SDPA, clocked)
    try:
        yield inside
    finally:
        AttentionInterface.register(attention.SDPA, attention.attend_sdpa)
