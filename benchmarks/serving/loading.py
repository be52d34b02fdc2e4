"""Measure the milliseconds to load a prompt from local disk that was verified before."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median, quantiles

import torch

from benchmarks.training.line import Line
from softprompt.serve.registry import Registry

from .bench import Bench

GOAL = 10.0


def measure(bench: Bench) -> Iterator[Line]:
    """Measure the 99th percentile and the median; the registry keeps nothing, so each load reads the disk."""
    for method in ("prompt-tuning", "prefix-tuning", "generated-prefix"):
        options = {"length": bench.length, "init": "random"}
        name = bench.publish(f"load/{method}", method, options)
        registry = Registry(bench.folder, bench.lm, max_bytes=0)
        first = registry.get(name)
        times = []
        for _ in range(40 * bench.repeats):
            started = bench.clock()
            again = registry.get(name)
            times.append(1000 * (bench.clock() - started))
        same = all(
            torch.equal(a, b)
            for a, b in zip(
                first.tuned.method.state_dict().values(),
                again.tuned.method.state_dict().values(),
                strict=True,
            )
        )
        yield Line(
            "loading",
            f"{method}, {bench.length} vectors, {first.bytes / 1e6:.2f} MB",
            quantiles(times, n=100)[-1],
            median(times),
            "ms (99 % / median)",
            quantiles(times, n=100)[-1] / GOAL,
            1.0,
            at_most=True,
            note=f"of {GOAL:g} ms",
            wrong="" if same and again.fingerprint == first.fingerprint else "it was not the same again",
        )
