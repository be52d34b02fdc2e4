"""Steps of rows that are decoded side by side, and the reading of new ones, with and without held weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest import mock

import torch

from benchmarks.training.clock import now
from benchmarks.training.line import Line
from softprompt.injection import Injection
from softprompt.lm import decoding, held_weights
from softprompt.lm.causal import CausalLM
from softprompt.lm.joining import Joined
from softprompt.lm.kv_store import Running

from .subject import Subject, best

ROWS = (1, 8, 64)
INPUT = 20  # tokens
READ = 520  # positions
SAME = {"float32": 1e-4, "bfloat16": 5e-2}  # of the logits' spread


@torch.no_grad()
def measure(subject: Subject) -> Iterator[Line]:
    """Yield a line for each number of rows."""
    for precision in subject.precisions:
        lm = subject.model(precision)
        with mock.patch.object(held_weights, "LEAST", 0):
            held_weights.hold(lm)
        held = held_weights.known(lm)
        if isinstance(held, nullcontext):  # this processor has no such product
            return
        off = _distance(lm, held)
        for rows in ROWS:
            running = Running(lm)
            running.join(joined(lm, rows).run(lm), range(rows))
            step = partial(running.step, [5] * rows)
            yield _line(
                subject, f"a step of {rows} row{'s' * (rows > 1)}, {precision}", held, step, off, precision
            )
        read = partial(_read, lm, READ // INPUT)
        yield _line(subject, f"reading {READ} positions, {precision}", held, read, off, precision)


def joined(lm: CausalLM, rows: int) -> Joined:
    """Return new rows of the same length, which have yet to be read."""
    ids = [i * 7 % 90 + 3 for i in range(INPUT)]
    return Joined(lm, [decoding.joining(lm, ids, Injection(), 80) for _ in range(rows)])


def _read(lm: CausalLM, rows: int) -> torch.Tensor:
    return joined(lm, rows).run(lm).logits[:, -1].float()


def _distance(lm: CausalLM, held: Any) -> float:
    """Return how far held weights move the logits, as a share of their spread."""
    plain = _read(lm, 1)
    with held:
        other = _read(lm, 1)
    return ((other - plain).norm() / (plain - plain.mean(-1, keepdim=True)).norm()).item()


def _line(
    subject: Subject, case: str, held: Any, call: Callable[[], torch.Tensor], off: float, precision: str
) -> Line:
    def held_call() -> torch.Tensor:
        with held:
            return call()

    times = best({"held": held_call, "plain": call}, subject.repeats, now)
    wrong = "" if off <= SAME[precision] else f"logits differ by {off:.1e} of their spread"
    ms = {name: 1000 * seconds for name, seconds in times.items()}
    note = f"logits within {off:.0e} of their spread"
    return Line(
        "steps", case, ms["held"], ms["plain"], "ms", ms["plain"] / ms["held"], note=note, wrong=wrong
    )
