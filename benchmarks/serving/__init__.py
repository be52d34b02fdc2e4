"""Measure how fast prompts are served, beside PEFT and beside the plain model in the same engine.

    python -m benchmarks.serving [--only MEASURE …] [--json | --markdown]
    python -m benchmarks.serving --only load --dtype float32 --minutes 10
    python -m benchmarks.serving --short

It needs softprompt[lora,gateway].

Prompts are random vectors and inputs are random tokens: no time depends on their content. The sides take
turns in one process; a ratio is the median of the turns' ratios. Answers are compared too: wrong ones end
the run with exit code 1, slow ones never do. `--short` runs every measure once
on a tiny random model: it shows that answers are right, and its times mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.training.line import Line

from . import first_token, folders, load, loading, mixed, switching
from .bench import Bench

#: Every measure, in the order of docs/serving.md.
MEASURES: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "peft": switching.measure,
    "mixed": mixed.measure,
    "first-token": first_token.measure,
    "loading": loading.measure,
    "folders": folders.measure,
    "load": load.measure,
}
