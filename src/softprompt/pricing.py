"""What a run will cost, before anything is trained: real steps and a real evaluation, timed here.

A step is made by the training loop itself, on a batch of mean size, after a step of one row that warms
the machine up; every trained number is put back afterwards. A cache on disk is timed from memory, where
the system keeps what it has read as long as there is room. What is quick is timed up to five times,
and the median taken, for another process may be busy. Nothing here prints or writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from .cache import ContextCache, ram
from .data.encode import Example
from .errors import SoftPromptError
from .lm.adapt import trained_weights
from .memory import peak_memory
from .methods.materialised import materialise
from .order import Order
from .prepare import Prepared
from .steps import step_loss
from .train import DevScore, fit, named_parameters
from .tuning import TEXT_ROWS, evaluator_of, optimization

TEXT_TOKENS = 8  # generated while measuring
REPEATS, PATIENCE = 5, 3.0  # times something is timed, and seconds after which once more is too much


@dataclass(frozen=True, slots=True)
class Price:
    """Measured seconds, and what follows from them for the whole run."""

    batch_rows: int  # of the measured step
    batch_tokens: int  # inputs and targets
    step_seconds: float
    steps: int
    cache_seconds: float  # once; 0 where nothing is cached
    evaluation_seconds: float  # all dev rows, once
    evaluations: int  # while training, and of the plain model and the best prompt
    text_seconds: float  # writing the dev rows' texts, by the plain model and by the tuned one
    memory_bytes: int  # largest resident size
    artifact_bytes: int
    trained_parameters: int

    @property
    def seconds(self) -> float:
        """Of the whole run, but for reading rows and loading the model."""
        steps = self.steps * self.step_seconds
        return self.cache_seconds + steps + self.evaluations * self.evaluation_seconds + self.text_seconds

    def to_json(self) -> dict[str, Any]:
        """All numbers, the predicted total as `seconds`."""
        return asdict(self) | {"seconds": self.seconds}


def measure(prepared: Prepared) -> Price:
    """Time one step and one evaluation of `prepared`, which is left as it was."""
    how = optimization(prepared.recipe)
    rows = _typical_batch(prepared.train, how.batch_size, how.seed)
    dev = _typical(prepared.dev, 32)
    parameters = named_parameters(prepared.lm, prepared.method)
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    cached, form = prepared.plan.is_cached, prepared.recipe.train.cache_dtype
    cache, cache_seconds = None, 0.0
    if cached:
        ram.build(prepared.lm, rows[:1], form=form)
        cache = ram.build(prepared.lm, rows, form=form)
        if not prepared.plan.stored:
            per_token = _median_seconds(lambda: ram.build(prepared.lm, rows, form=form)) / _tokens(rows)
            cache_seconds = per_token * (_tokens(prepared.train) + _tokens(prepared.dev))
    try:
        step_seconds = _step_seconds(replace(prepared, train=rows), cache) if parameters else 0.0
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])
                parameter.grad = None
    dev_cache = ram.build(prepared.lm, dev, form=form) if cached else None
    evaluator = evaluator_of(prepared.recipe, prepared.lm, prepared.encoder)
    once = _median_seconds(lambda: evaluator.run(prepared.method, dev, cache=dev_cache, text_rows=0))
    text_seconds = 0.0
    if prepared.encoder.kind == "generation":
        tokens = min(TEXT_TOKENS, evaluator.max_new_tokens)
        started = time.perf_counter()
        replace(evaluator, max_new_tokens=tokens).run(prepared.method, dev, cache=dev_cache)
        written = max(0.0, time.perf_counter() - started - once)
        batches = min(TEXT_ROWS, len(prepared.dev)) / len(dev)
        text_seconds = 2 * written * batches * evaluator.max_new_tokens / tokens
    between = how.steps_between_evaluations
    return Price(
        batch_rows=len(rows),
        batch_tokens=_tokens(rows) + sum(len(e.target_ids) for e in rows),
        step_seconds=step_seconds,
        steps=how.steps,
        cache_seconds=cache_seconds,
        evaluation_seconds=once * _tokens(prepared.dev) / _tokens(dev),
        evaluations=-(-how.steps // between) + 2,
        text_seconds=text_seconds,
        memory_bytes=peak_memory() + (prepared.plan.cache_bytes if prepared.plan.mode == "cached-ram" else 0),
        artifact_bytes=artifact_bytes(prepared),
        trained_parameters=prepared.trained_parameters,
    )


def artifact_bytes(prepared: Prepared) -> int:
    """Bytes of the tensors that serving will load (headers of a few kB aside)."""
    static = materialise(prepared.method)
    numbers = list(prepared.method.state_dict().values())
    if static is not None:
        numbers = []
        for injection in static.prompts:
            injection.map_rows(lambda tensor: numbers.append(tensor) or tensor)
        numbers = [tensor for tensor in numbers if tensor.dtype != torch.bool]  # masks are not saved
    numbers += trained_weights(prepared.lm).values()
    return sum(tensor.numel() * tensor.element_size() for tensor in numbers)


def _median_seconds(work: Callable[[], Any]) -> float:
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < PATIENCE:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


def _step_seconds(prepared: Prepared, cache: ContextCache | None) -> float:
    """Seconds of one step over all of `prepared.train`, by the training loop itself."""
    loss = step_loss(prepared, cache)
    whole = list(range(len(prepared.train)))
    ends: list[float] = []
    how = replace(optimization(prepared.recipe), steps=1 + REPEATS, patience=None)
    fit(
        prepared.lm,
        prepared.method,
        lambda _: loss(whole if ends else whole[:1]),
        [len(e.input_ids) for e in prepared.train],
        lambda: DevScore((0.0,), "", 0.0),
        how,
        on_event=lambda event: ends.append(time.perf_counter()),
        should_stop=lambda: len(ends) > 1 and ends[-1] - ends[0] > PATIENCE,
    )
    if len(ends) < 2:
        raise SoftPromptError(
            f"the loss of the first step is not finite (lr={how.lr:g})",
            why="the learning rate is too large, or the start is bad",
            fix=f"train.lr={how.lr / 10:.1e}, or leave train.lr and method.init out for the defaults",
        )
    return median(later - earlier for earlier, later in pairwise(ends))


def _typical_batch(examples: Sequence[Example], size: int, seed: int) -> list[Example]:
    """The batch of the first epoch whose padded size is nearest the mean."""
    order = Order([len(e.input_ids) for e in examples], size, seed)
    batches = [[examples[i] for i in order.batch(step)] for step in range(order.per_epoch)]
    padded = [len(batch) * max(len(e.input_ids) for e in batch) for batch in batches]
    mean = sum(padded) / len(padded)
    return min(zip(batches, padded, strict=True), key=lambda pair: abs(pair[1] - mean))[0]


def _typical(examples: Sequence[Example], number: int) -> list[Example]:
    """`number` examples spread over the lengths that occur."""
    ordered = sorted(examples, key=lambda e: len(e.input_ids))
    take = min(number, len(ordered))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * take)] for i in range(take)]


def _tokens(examples: Sequence[Example]) -> int:
    return sum(len(e.input_ids) for e in examples)
