"""What is kept of inputs in memory, for one run: an input that occurs twice is computed and held once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

from ..data.batches import by_tokens
from ..data.encode import Example
from ..memory import free_memory
from .kept import Kept, Row, distinct

BATCH_TOKENS = 1024  # that are run through the model at once: more were slower on a CPU
BUDGET_SHARE = 0.4  # of the memory that is free, where the user names no budget


@final
class RamStore:
    """Rows held on the model's device."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows

    @property
    def bytes(self) -> int:
        """Memory it holds."""
        return sum(t.numel() * t.element_size() for row in self._rows.values() for t in row)

    def row(self, name: str) -> Row:
        """As it was computed: not a copy."""
        return self._rows[name]


def build(
    kept: Kept,
    examples: Sequence[Example],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> RamStore:
    """Computes every distinct input once. `progress(done, total)` counts them."""
    inputs = distinct(kept, examples)
    rows: dict[str, Row] = {}
    for chunk in by_tokens(range(len(inputs)), [len(e.input_ids) for e in inputs], batch_tokens):
        part = [inputs[i] for i in chunk]
        rows.update(zip(map(kept.name, part), kept.compute(part), strict=True))
        if progress:
            progress(len(rows), len(inputs))
    return RamStore(rows)


def default_budget(device: str = "cpu") -> int:
    """Bytes the cache may take: a share of the memory that is free now."""
    return int(BUDGET_SHARE * free_memory(device))
