"""Each way through a model that saves time or memory gives the same numbers on the device.

torch.compile of the model, layers that are computed again in the backward pass, and caches of `generate`
that are kept elsewhere. Where there is no GPU the model is compiled by torch's "eager" backend, which traces
it and generates no code, and a static cache takes the place of those that move between devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import base_models
from benchmarks.training import clock
from benchmarks.training.line import Line
from benchmarks.training.ours import Ours
from softprompt.data.collate import batch_of_ids

from .flash import random_rows
from .peak import peak
from .piece import Subject

DTYPE, ALLOWED = "float32", 1e-4  # of the gradient
CACHES = {"cuda": ("offloaded", "offloaded_static", "static"), "cpu": ("static",)}


def compiled(subject: Subject, model: str) -> Iterator[Line]:
    """Compare a full step with that of the compiled model: `lm.model.forward = torch.compile(…)`."""
    lm, side, rows = _subject(subject, model)
    plain = _gradient(side, rows)
    before = _seconds(lambda: side.backward(rows), subject)
    forward = lm.model.forward
    backend = "inductor" if subject.device == "cuda" else "eager"
    lm.model.forward = torch.compile(forward, backend=backend)
    try:
        wrong = _apart(_gradient(side, rows), plain)
        after = _seconds(lambda: side.backward(rows), subject)
    finally:
        lm.model.forward = forward
        torch.compiler.reset()
    case = f"a full step of {len(rows)} rows, {DTYPE}, backend {backend}"
    yield Line("compile", case, 1000 * after, 1000 * before, "ms", before / after, wrong=wrong)


def checkpointing(subject: Subject, model: str) -> Iterator[Line]:
    """Compare a full step with that of layers that are computed again."""
    lm, side, rows = _subject(subject, model)
    with peak() as whole:
        plain = _gradient(side, rows)
    lm.set_gradient_checkpointing(True)
    try:
        with peak() as again:
            wrong = _apart(_gradient(side, rows), plain)
    finally:
        lm.set_gradient_checkpointing(False)
    case = f"a full step of {len(rows)} rows, {DTYPE}: layers computed again beside kept ones"
    both = again.bytes / 1e6, whole.bytes / 1e6
    yield Line("checkpointing", case, *both, "MB", both[0] / max(1e-9, both[1]), wrong=wrong)


@torch.no_grad()
def caches(subject: Subject, model: str) -> Iterator[Line]:
    """Compare the tokens under a prefix with each kind of cache with those of the usual one."""
    lm, side, _ = _subject(subject, model)
    ids = [row.input_ids for row in side.rows[:3]]
    batch = batch_of_ids([ids[0], ids[1][: len(ids[1]) // 2], ids[2]], device=lm.device)
    options: dict[str, Any] = {"max_new_tokens": 4 if subject.short else 16, "do_sample": False}
    expected = lm.generate(batch, side.injection(), **options)
    for kind in CACHES[subject.device]:
        tokens = lm.generate(batch, side.injection(), cache_implementation=kind, **options)
        same = (tokens == expected).float().mean().item()
        wrong = "" if same == 1 else f"only {same:.0%} of the tokens are the same"
        yield Line("caches", f"{kind}, {DTYPE}", 100 * same, 100.0, "% of tokens", wrong=wrong)


def _subject(subject: Subject, model: str) -> tuple[Any, Ours, list[int]]:
    """Return a model, a prefix ahead of random rows of one length, and the rows of a step."""
    lm: Any = base_models.load(subject.model(model), DTYPE)
    count, tokens = (3, 12) if subject.short else (16, 256)
    rows = random_rows(lm, count, tokens)
    return lm, Ours(lm, "prefix-tuning", rows), list(range(count))


def _gradient(side: Ours, rows: list[int]) -> list[Tensor]:
    side.method.zero_grad(set_to_none=True)
    side.backward(rows)
    return [p.grad.clone() for p in side.method.parameters() if p.grad is not None]


def _apart(result: list[Tensor], expected: list[Tensor]) -> str:
    pairs = zip(result, expected, strict=True)
    worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    return "" if worst <= ALLOWED else f"the gradient differs by {worst:.1e}"


def _seconds(work: Callable[[], Any], subject: Subject) -> float:
    times = []
    for turn in range(-1, 1 if subject.short else 5):
        started = clock.now()
        work()
        if turn >= 0:
            times.append(clock.now() - started)
    return median(times)
