"""Measure the time to the first token under a long static prompt, which is cached, and the plain model's."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks.training.line import Line
from softprompt.serve.request import Token

from .bench import Bench, ratio, request

GOAL, VECTORS, TURNS = 1.05, 64, 6


def measure(bench: Bench) -> Iterator[Line]:
    """Measure milliseconds, one request at a time; no input is used twice."""
    kinds = {"prompt-tuning": "soft tokens", "prefix-tuning": "prefix"}
    for method, kind in kinds.items():
        options = {"length": VECTORS, "placement": "before", "init": "random"}
        name = bench.publish(f"long/{method}", method, options)
        with bench.engine() as engine:
            for inputs in bench.inputs:
                times: dict[str | None, list[float]] = {name: [], None: []}
                wrong = ""
                for turn in range(TURNS * bench.repeats + 1):
                    for prompt, durations in times.items():
                        started = bench.clock()
                        items = iter(engine.submit(request(prompt, bench.ids(inputs), 2)))
                        first = next(items)
                        if turn:
                            durations.append(1000 * (bench.clock() - started))
                        if not isinstance(first, Token) or len(list(items)) != 2:
                            wrong = "a request was not answered"
                yield Line(
                    "first-token",
                    f"{VECTORS} vectors before, {kind}, {inputs} tokens in",
                    median(times[name]),
                    median(times[None]),
                    "ms",
                    ratio(times[name], times[None]),
                    GOAL,
                    at_most=True,
                    wrong=wrong,
                )
