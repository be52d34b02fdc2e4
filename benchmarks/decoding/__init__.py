"""Measure how fast a CPU decodes: answers beside padded batches, and forms of the weights.

    python -m benchmarks.decoding [--rows 60] [--only MEASURE …] [--json | --markdown]
    python -m benchmarks.decoding --short

SmolLM2 answers the rows of `softprompt demo`. All sides take turns in one process. `ATEN_CPU_CAPABILITY=avx2
ONEDNN_MAX_CPU_ISA=AVX2 FBGEMM_ENABLE_INSTRUCTIONS=AVX2` imitates a processor that has AVX2 alone. Wrong
results end the run with exit code 1, slow ones never do. `--short` runs on a tiny random model, and its
times mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.training.line import Line

from . import answers, products, steps, weights
from .subject import Subject

#: Every measure, in the order of docs/performance.md.
MEASURES: dict[str, Callable[[Subject], Iterator[Line]]] = {
    "answers": answers.measure,
    "steps": steps.measure,
    "products": products.measure,
    "weights": weights.measure,
}
