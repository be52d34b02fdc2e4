"""The costs that the report shows are named here, with the way that their numbers are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ....page import numbers


@dataclass(frozen=True)
class CostKind:
    """`short` writes a value on an axis, `full` in a table. `chosen` ones can be put against quality.

    `steps` are those between ticks, where multiples of ten are not round.
    """

    key: str
    label: str
    short: Callable[[float | None], str]
    full: Callable[[float | None], str]
    chosen: bool = False
    steps: tuple[float, ...] = ()


#: Steps of a clock, in seconds.
_CLOCK = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)

KINDS = (
    CostKind("train_seconds", "training time", numbers.seconds, numbers.seconds, True, _CLOCK),
    CostKind("trained_parameters", "trained parameters", numbers.short, numbers.count, True),
    CostKind("artifact_bytes", "size of the artifact", numbers.size, numbers.size, True),
    CostKind("artifact_bytes_per_prompt", "size for each prompt", numbers.size, numbers.size),
    CostKind("added_tokens", "tokens added to each input", numbers.short, numbers.short, True),
    CostKind("prefix_columns", "columns that attention reads besides", numbers.short, numbers.short),
    CostKind("cache_seconds", "time to fill the cache", numbers.seconds, numbers.seconds),
    CostKind("flops", "computation in training (FLOPs)", numbers.short, numbers.short),
    CostKind("peak_memory_bytes", "peak memory", numbers.size, numbers.size),
    CostKind("cache_bytes", "size of the cache", numbers.size, numbers.size),
)
