"""Time of a cached step against the length of its inputs, and how much of it is attention.

Attention is timed inside the step: its forward pass where the model calls it, its backward pass from
the gradient of its output to that of its queries. What is left should not grow; reading the rows from
the cache is shown apart.
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
FLAT = 1.25  # what is left of a step may grow by a quarter
REPEATS = 5


def measure(options: Options) -> Iterator[Line]:
    """Milliseconds of a cached step without attention and the cache, against those at the shortest input."""
    for dtype in options.dtypes:
        lm = softprompt.load(options.model, dtype=dtype)
        # each length a turn, again and again: a machine that slows down does so for all of them
        sides = {length: side_of(lm, length) for length in options.lengths}
        found: dict[int, list[tuple[float, float, float]]] = {length: [] for length in sides}
        for turn in range(-1, options.blocks * (1 if options.blocks == 1 else REPEATS)):
            for length, side in sides.items():
                made = timed(side)
                if turn >= 0:
                    found[length].append(made)
        rest = {n: median(all_ - att - read for all_, att, read in times) for n, times in found.items()}
        for length, times in found.items():
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
    """A prefix after random inputs; one row is computed and stands in all places of a batch."""
    draw = random.Random(length)
    size = lm.spec.vocab_size
    row = example([draw.randrange(size) for _ in range(length)], [draw.randrange(size)])
    return Ours(lm, "prefix-tuning", [row], "cached", kept(lm, [row]))


def timed(side: Ours) -> tuple[float, float, float]:
    """Seconds of a step, and in it of attention and of reading its rows from the cache."""
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
    """Seconds of every part of attention that runs inside."""
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
