"""Measure a batch in which each row has its own prompt, beside the plain model in the same engine."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks.training.line import Line

from .bench import Bench, answers, ratio, request

GOAL = 0.9
KINDS = [(m, p) for m in ("prompt-tuning", "prefix-tuning") for p in ("before", "after")]


def measure(bench: Bench) -> Iterator[Line]:
    """Measure requests a second, and check that answers in the mixed batch are those of the row alone."""
    names = []
    for i in range(bench.prompts):
        method, place = KINDS[i % len(KINDS)]
        options = {"length": bench.length, "placement": place, "init": "random"}
        names.append(bench.publish(f"mixed/{i}", method, options, i))
    for inputs in bench.inputs:
        with bench.engine(cache_bytes=2**28) as engine:
            got = {}

            def ask(mixed: bool, inputs=inputs, engine=engine, got=got) -> None:
                batch = [request(name if mixed else None, bench.ids(inputs), bench.tokens) for name in names]
                got[mixed] = batch, answers(engine, batch)

            sides = {"mixed": lambda: ask(True), "plain": lambda: ask(False)}
            times = bench.in_turns(sides)
            wrong = sum(
                answers(engine, [row]) != [tokens]
                for batch, results in (got.values() if bench.exact else ())
                for row, tokens in list(zip(batch, results, strict=True))[:: max(1, len(names) // 8)]
            )
        mixed, plain = (len(names) / median(times[side]) for side in ("mixed", "plain"))
        yield Line(
            "mixed",
            f"{len(names)} prompts of {bench.length} vectors, {inputs} tokens in, {bench.tokens} out",
            mixed,
            plain,
            "requests/s",
            ratio(times["plain"], times["mixed"]),
            GOAL,
            wrong=f"{wrong} answers are not those of the row alone" if wrong else "",
        )
