"""Time one batch of each part of the demo before any part is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from softprompt.data.example import Example
from softprompt.evaluation.evaluator import Evaluator
from softprompt.methods.base import SoftPrompt
from softprompt.training.prepare import Prepared
from softprompt.training.step_timing import step_seconds, typical_batch
from softprompt.training.tune import optimization

from .plan import Paces

SHORT, LONG = 16, 8  # rows that are timed, without and with demonstrations
TOKENS = 12  # of each answer


def measure(
    evaluator: Evaluator,
    plain: SoftPrompt,
    short: Sequence[Example],
    long: Sequence[Example],
    tuned: Prepared,
) -> Paces:
    """Time the parts: `short` are the test rows of the plain model, `long` the same with demonstrations."""
    evaluator = replace(evaluator, max_new_tokens=min(TOKENS, evaluator.max_new_tokens))
    _seconds(lambda: _answered(evaluator, plain, short[:2]))  # warms the machine up
    score, write = _answering(evaluator, plain, short[:SHORT])
    shown_score, shown_write = _answering(evaluator, plain, long[:LONG])
    batch = typical_batch(tuned.train, optimization(tuned.recipe))
    step = step_seconds(tuned, batch, repeats=1)
    return Paces(evaluator.max_new_tokens, score, write, shown_score, shown_write, step)


def _answering(evaluator: Evaluator, plain: SoftPrompt, rows: Sequence[Example]) -> tuple[float, float]:
    """Return the seconds to score a row, and the additional seconds to answer it in text."""
    scored = _seconds(lambda: _scored(evaluator, plain, rows))
    both = _seconds(lambda: _answered(evaluator, plain, rows))
    return scored / len(rows), max(0.0, both - scored) / len(rows)


def _scored(evaluator: Evaluator, plain: SoftPrompt, rows: Sequence[Example]) -> Any:
    return replace(evaluator, metrics=("perplexity",)).run(plain, rows, text_rows=0)


def _answered(evaluator: Evaluator, plain: SoftPrompt, rows: Sequence[Example]) -> Any:
    return replace(evaluator, metrics=("chrf",)).run(plain, rows)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
