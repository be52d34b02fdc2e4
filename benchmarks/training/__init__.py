"""Measure how fast training is, beside PEFT and beside this machine's matrix products.

    python -m benchmarks.training --data DIR [--only MEASURE …] [--json | --markdown]
    python -m benchmarks.training --short

`DIR` holds sst2/, ag_news/ and boolq/, each with train.jsonl and validation.jsonl of `input` and `target`.
Every measure runs its sides in turns, in one process (memory: in new ones), and gives ratios of medians.
Wrong results end the run with exit code 1, slow ones never do. `--short` runs every measure once on a
tiny random model and made-up rows: it shows that results are right, and its times mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import cached_step, flops, growth, int8, many, memory, same_maths, shares, sizes, time_to_accuracy
from .line import Line
from .options import Options

#: Every measure, in the order of docs/performance.md.
MEASURES: dict[str, Callable[[Options], Iterator[Line]]] = {
    "same-maths": same_maths.prompts,
    "memory": memory.measure,
    "prefix": same_maths.prefixes,
    "time-to-accuracy": time_to_accuracy.measure,
    "cached-step": cached_step.measure,
    "many": many.measure,
    "flops": flops.measure,
    "passes": sizes.measure,
    "growth": growth.measure,
    "int8": int8.measure,
    "shares": shares.measure,
}
