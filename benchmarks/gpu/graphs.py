"""A cached step as one CUDA graph: is it the same step, and how much of a step is waiting for its launches?

softprompt has no option for this: a run's steps have rows of many lengths, and a graph has one shape. Here
all rows have the same length, so a step is captured once and replayed for other rows, whose tokens, keys
and values are copied into the tensors that the graph reads. Where there is no GPU the step is not captured.
It runs under a mode that refuses what a capture refuses: to wait for a number, and to send one to the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import base_models
from benchmarks.training import clock
from benchmarks.training.line import Line
from benchmarks.training.ours import Ours, kept
from softprompt.lm import causal_rows
from softprompt.lm.context import Context
from softprompt.training.cross_entropy import cross_entropy

from .flash import random_rows
from .piece import Subject

ROWS = 8  # a step
TURNS = 10
ALLOWED = {"float32": 1e-4, "bfloat16": 5e-2}  # of the loss and the gradient: the shapes of products differ
aten = torch.ops.aten
#: What waits for the device, or sends a number of Python's to it.
REFUSED = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.equal.default,
    aten.lift_fresh.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.masked_select.default,
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class AsInCapture(TorchDispatchMode):
    """Refuses the operations that cannot be captured in a graph."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if func in REFUSED or (func in INDEXING and _by_mask(args[1])):
            raise RuntimeError(f"{func} cannot be captured: the device would wait for the processor")
        return func(*args, **(kwargs or {}))


def _by_mask(indices: Sequence[Tensor | None]) -> bool:
    """Return whether a mask is among the indices: how many numbers it chooses is read from the device."""
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


@final
class FixedStep:
    """Takes a cached step of rows of one length, with one target each; `run` does so for other rows."""

    def __init__(self, side: Ours, indices: Sequence[int]) -> None:
        self.side, self.lm = side, side.lm
        device = self.lm.device
        self._context = self._read(indices)
        rows, columns = self._context.mask.shape
        self._last, self._target = self._tokens(indices)
        self._mask = torch.ones(rows, 1, dtype=torch.bool, device=device)
        self._positions = torch.full((rows, 1), columns, device=device)
        self._start = torch.zeros(rows, dtype=torch.long, device=device)
        self.parameters = [p for p in side.method.parameters() if p.requires_grad]
        self._prompt = torch.zeros(1, dtype=torch.long, device=device)
        self._graph: Any = None
        self._output: tuple[Tensor, ...] = ()

    def _read(self, indices: Sequence[int]) -> Context:
        contexts = self.side.cache.context(indices)
        assert contexts is not None
        return contexts

    def _tokens(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [self.side.rows[i] for i in indices]
        columns = [[r.input_ids[-1] for r in rows], [r.target_ids[0] for r in rows]]
        last, target = torch.tensor(columns, device=self.lm.device)
        return last, target

    def step(self) -> tuple[Tensor, ...]:
        """Compute the mean loss and the gradients, from the tensors that `load` fills."""
        lm: Any = self.lm
        injection = self.side.method(self._prompt).fit(len(self._last))
        active = causal_rows.injected(
            lm, injection, self._positions, self._start, self._positions[:, 0], self._context
        )
        logits = lm.run(lm.token_inputs(self._last[:, None]), self._mask, self._positions, active)
        loss = cross_entropy(logits.flatten(0, 1), self._target).mean()
        return loss, *torch.autograd.grad(loss, self.parameters)

    def load(self, indices: Sequence[int]) -> None:
        """Copy other rows into the tensors of the step."""
        for now, new in zip(self._context.layers, self._read(indices).layers, strict=True):
            if now is not None and new is not None:
                now.key.copy_(new.key)
                now.value.copy_(new.value)
        last, target = self._tokens(indices)
        self._last.copy_(last)
        self._target.copy_(target)

    def capture(self) -> None:
        """Record the step in a graph; without a GPU, check that it could be recorded."""
        if self.lm.device.type != "cuda":
            with AsInCapture():
                self.step()
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = self.step()

    def run(self) -> tuple[Tensor, ...]:
        """Return the loss and the gradients of the rows that were loaded last."""
        if self._graph is None:
            return self.step()
        self._graph.replay()
        return self._output


def measure(subject: Subject, model: str, tokens: int) -> Iterator[Line]:
    """Compare a step as it is run in training with the same step, captured and replayed for other rows."""
    dtype = "float32" if subject.short else "bfloat16"
    count, rows = (24, 3) if subject.short else (tokens, ROWS)
    lm = base_models.load(subject.model(model), dtype)
    side = _side(lm, count, 2 * rows)
    first, second = list(range(rows)), list(range(rows, 2 * rows))
    fixed = FixedStep(side, first)
    fixed.capture()
    fixed.load(second)
    results = [t.clone() for t in fixed.run()]
    wrong = _wrong(results, side, second, ALLOWED[dtype])
    sides: dict[str, Callable[[], Any]] = {
        "step": lambda: side.backward(second),
        "fixed": fixed.step,
        "graph": fixed.run,
    }
    seconds = _timed(sides, 1 if subject.short else TURNS)
    case = f"{count:,} tokens × {rows} rows, {dtype}"
    note = "no option of softprompt: a graph has one shape"
    for name, other in (("step", "a training step"), ("fixed", "the same, not captured")):
        yield Line(
            "graphs",
            f"{case}: a graph beside {other}",
            1000 * seconds["graph"],
            1000 * seconds[name],
            "ms",
            seconds[name] / seconds["graph"],
            note=note if fixed._graph is not None else f"{note}; not captured, for want of a GPU",
            wrong=wrong,
        )


def _side(lm: Any, tokens: int, rows: int) -> Ours:
    """Return a prefix after random inputs of one length, on their cache."""
    texts = random_rows(lm, rows, tokens)
    return Ours(lm, "prefix-tuning", texts, "cached", kept(lm, texts))


def _wrong(results: list[Tensor], side: Ours, indices: list[int], allowed: float) -> str:
    side.method.zero_grad(set_to_none=True)
    loss = side.backward(indices)
    expected = [loss, *(p.grad for p in side.method.parameters() if p.grad is not None)]
    for result, right in zip(results, expected, strict=True):
        apart = ((result - right).abs().max() / right.abs().max()).item()
        if not apart <= allowed:
            return f"loss or gradient differs by {apart:.1e} from a training step's"
    return ""


def _timed(sides: dict[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-1, turns):
        for name, side in sides.items():
            started = clock.now()
            side()
            if turn >= 0:
                seconds[name].append(clock.now() - started)
    return {name: median(times) for name, times in seconds.items()}
