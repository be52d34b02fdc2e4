"""Compare many prompts trained in one run with as many trained one after another.

The prompts are prefixes after the input on one cache; each has its own rows, vectors and optimizer. The
cache, which both sides share, is built before the clock starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks import base_models

from . import clock
from .line import Line, apart
from .options import Options
from .ours import Block, Ours, kept, train
from .rows import encoded

#: Of losses. In bfloat16 the rounding of a row depends on its batch by so much.
ALLOWED = {"float32": 1e-3, "bfloat16": 0.15}
ROWS = 512  # that the prompts share
GOALS = {8: 4.0, 128: 1.0}  # by rows a step


def measure(options: Options) -> Iterator[Line]:
    """Measure the seconds until all prompts have had their steps, by rows a step of each prompt."""
    for dtype in options.dtypes:
        lm = base_models.load(options.model, dtype)
        rows = encoded(options.data, "sst2", ROWS, lm.tokenizer)
        cache = kept(lm, rows)
        prompts = [Ours(lm, "prefix-tuning", rows, "cached", cache) for _ in range(options.prompts)]
        for size in options.prompt_rows:
            yield _compared(options, prompts, size, dtype)


def _compared(options: Options, prompts: list[Ours], size: int, dtype: str) -> Line:
    steps = options.prompt_steps
    row_numbers = [[(7 * i + j) % ROWS for j in range(steps * size)] for i in range(len(prompts))]
    prompts[0].train(row_numbers[0], 1, size)  # warm
    apart_seconds: list[float] = []
    together_seconds: list[float] = []
    wrong = ""
    for _ in range(options.blocks):
        seconds, alone = _one_after_another(prompts, row_numbers, steps, size)
        apart_seconds.append(seconds)
        started = clock.now()
        beside = train(prompts, row_numbers, steps, size)
        together_seconds.append(clock.now() - started)
        if len(beside) != len(alone):
            wrong = wrong or f"{len(beside)} of {len(alone)} prompts were trained"
            continue
        for single, joined in zip(alone, beside, strict=True):
            wrong = wrong or apart(single.losses, joined.losses, ALLOWED[dtype], "one run against many")
    sequential, joint = median(apart_seconds), median(together_seconds)
    return Line(
        "many",
        f"{len(prompts)} prompts × {size} rows a step, {dtype}",
        joint,
        sequential,
        f"s for {steps} steps",
        sequential / joint,
        GOALS.get(size),
        wrong=wrong,
    )


def _one_after_another(
    prompts: list[Ours], row_numbers: list[list[int]], steps: int, size: int
) -> tuple[float, list[Block]]:
    started = clock.now()
    blocks = [prompt.train(rows, steps, size) for prompt, rows in zip(prompts, row_numbers, strict=True)]
    return clock.now() - started, blocks
