"""Metrics of other packages, from entry points of the group `softprompt.metrics`.

    def brevity(prediction: str, references: Sequence[str]) -> float: ...

An entry point names such a function, whose mean over the examples is the metric (it may have an attribute
`higher_is_better`), or a `metrics.Metric`. What it returns is checked: a value that is not finite, or
statistics of another shape, would be wrong scores without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import SoftPromptError
from .metric import Inputs, Metric, mean

NEEDS = ("prediction", "number", "nll")


def metric_of(name: str, target: Any) -> Metric:
    """Make a metric of the object that an entry point names. Raises SoftPromptError for another form."""
    if isinstance(target, Metric):
        metric = target
    elif callable(target) and not isinstance(target, type):
        function: Callable[..., Any] = target
        metric = mean(function, higher_is_better=bool(getattr(target, "higher_is_better", True)))
    else:
        raise SoftPromptError(
            f"a metric is a function or a Metric, not {target!r:.80}",
            fix="write `def my_metric(prediction, references): return …` (docs/own-method.md)",
        )
    if metric.needs not in NEEDS:
        raise SoftPromptError(f"it needs '{metric.needs}'", fix=f"one of: {', '.join(NEEDS)}")

    def stats(inputs: Inputs) -> np.ndarray:
        values = np.asarray(_called(name, metric.stats, inputs), dtype=np.float64)
        n = max(len(inputs.predictions), len(inputs.nll or ()))
        if values.ndim != 2 or len(values) != n:
            raise _wrong(name, f"its statistics have the shape {list(values.shape)}, not [{n}, k]")
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values).all(axis=1)))
            raise _wrong(name, f"its value for example {row} is not finite")
        return values

    # `score` of a mean stays the library's function, by which `Metric.is_mean` knows it
    score = metric.score if metric.is_mean else lambda sums: float(_called(name, metric.score, sums))
    return replace(metric, stats=stats, score=score)


def _called(name: str, function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return function(argument)
    except SoftPromptError:
        raise
    except Exception as error:
        raise _wrong(name, f"it raised {type(error).__name__}: {error}") from error


def _wrong(name: str, why: str) -> SoftPromptError:
    return SoftPromptError(f"metric '{name}' failed", why, "correct the package that it comes from")
