"""Compare a step's achieved FLOP/s with this machine's matrix products.

The step's operations are counted by torch on a real step, forward and backward (what it skips is not
counted). The machine's rate is that of `torch.mm` in the same precision at the shapes of the model's own
linear layers with the step's own number of tokens, forward and transposed, weighted by how often a step
has them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import softprompt

from .line import Line
from .options import Options
from .ours import Mode, Ours, batches, kept
from .rows import encoded, filled

GOAL = 0.6  # of full steps
REPEATS = 5
Shapes = Counter[tuple[int, int, int]]  # (tokens, in, out) of linear layers, and how many there are


def measure(options: Options) -> Iterator[Line]:
    """Measure GFLOP/s of `prompt-tuning` ahead of the input and of cached `prefix-tuning` after it."""
    for dtype in options.dtypes:
        lm = softprompt.load(options.model, dtype=dtype)
        short = encoded(options.data, "sst2", options.batch * 16, lm.tokenizer)
        middle = batches(short, range(len(short)), 16, options.batch)[8]
        wide = filled(options.data, "boolq", *options.wide, lm.tokenizer)
        for name, rows in (
            (f"{options.batch} rows of sst2", [short[i] for i in middle]),
            (f"{options.wide[0]} rows × {options.wide[1]} tokens", wide),
        ):
            for mode in ("full", "cached"):
                yield _line(lm, rows, f"{name}, {dtype}, {mode} step", mode)


def _line(lm: Any, rows: list, case: str, mode: Mode) -> Line:
    method = "prompt-tuning" if mode == "full" else "prefix-tuning"
    side = Ours(lm, method, rows, mode, kept(lm, rows) if mode == "cached" else None)
    shapes: Shapes = Counter()
    with FlopCounterMode(display=False) as counter, noting(lm.model, shapes):
        _step(side)
    total = counter.get_total_flops()
    step, product = _in_turns(lambda: _step(side), lambda: _products(shapes, lm.dtype))
    rate, machine = total / step / 1e9, 2 * operations(shapes) / product / 1e9
    return Line(
        "flops",
        case,
        rate,
        machine,
        "GFLOP/s",
        rate / machine,
        GOAL if mode == "full" else None,
        note=f"{total / 1e9:.1f} GFLOP in {1000 * step:.0f} ms",
        wrong="" if total else "no operation was counted",
    )


def _step(side: Ours) -> None:
    """Run forward and backward; the optimizer multiplies no matrices."""
    side.method.zero_grad(set_to_none=True)
    side.backward(range(len(side.rows)))


@contextmanager
def noting(model: torch.nn.Module, shapes: Shapes) -> Iterator[None]:
    """Count the shapes of every linear layer that runs inside."""

    def note(layer: Any, inputs: tuple, output: Any) -> None:
        width = inputs[0].shape[-1]
        shapes[inputs[0].numel() // width, width, output.shape[-1]] += 1

    linear = (m for m in model.modules() if isinstance(m, torch.nn.Linear))
    handles = [m.register_forward_hook(note) for m in linear]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def operations(shapes: Shapes) -> int:
    """Count the operations of one product of each layer."""
    return sum(2 * m * k * n * count for (m, k, n), count in shapes.items())


def _products(shapes: Shapes, dtype: torch.dtype) -> float:
    """Time [tokens, in] × [in, out] and [tokens, out] × [out, in] of all layers, in seconds."""
    seconds = 0.0
    for (m, k, n), count in shapes.items():
        for inner, outer in ((k, n), (n, k)):
            a, b = torch.randn(m, inner).to(dtype), torch.randn(inner, outer).to(dtype)
            torch.mm(a, b)
            times = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                torch.mm(a, b)
                times.append(time.perf_counter() - started)
            seconds += count * median(times)
    return seconds


def _in_turns(step: Callable[[], None], products: Callable[[], float]) -> tuple[float, float]:
    """Return the medians of both, timed in turns after one step that warms the machine up."""
    step()
    steps, multiplied = [], []
    for _ in range(REPEATS):
        started = time.perf_counter()
        step()
        steps.append(time.perf_counter() - started)
        multiplied.append(products())
    return median(steps), median(multiplied)
