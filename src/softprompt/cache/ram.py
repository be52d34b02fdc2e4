"""The inputs' keys and values in memory, for one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from ..data.encode import Example
from ..lm.base import LanguageModel
from ..lm.context import Context
from .rows import BATCH_TOKENS, Form, Row, assemble, chunks, compute

BUDGET_SHARE = 0.4  # of the memory that is free, where the user names no budget


@final
class RamCache:
    """A `ContextCache` whose rows are held on the model's device."""

    def __init__(self, rows: list[Row], form: Form) -> None:
        self._rows = rows
        self._form: Form = form

    @property
    def bytes(self) -> int:
        """Memory it holds."""
        return sum(t.numel() * t.element_size() for row in self._rows for t in row)

    def __len__(self) -> int:
        return len(self._rows)

    def context(self, indices: Sequence[int], lm: LanguageModel) -> Context:
        """The context of a batch of rows, right-aligned."""
        return assemble([self._rows[i] for i in indices], self._form, lm)


def build(
    lm: LanguageModel,
    examples: Sequence[Example],
    *,
    form: Form = "auto",
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> RamCache:
    """Runs every input once through the plain model. `progress(done, total)` counts rows."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids))
    rows: list[Row] = [[] for _ in examples]
    done = 0
    for chunk in chunks(order, examples, batch_tokens):
        for index, row in zip(chunk, compute(lm, [examples[i] for i in chunk], form), strict=True):
            rows[index] = row
        done += len(chunk)
        if progress:
            progress(done, len(examples))
    return RamCache(rows, form)


def default_budget() -> int:
    """Bytes the cache may take: a share of the memory that is free now."""
    import psutil

    return int(BUDGET_SHARE * psutil.virtual_memory().available)
