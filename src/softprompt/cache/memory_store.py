"""Rows are kept in memory for one run; an input that occurs twice is computed and kept once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import final

from .._system.memory import free_memory
from ..data.batching import by_tokens
from ..data.example import Example
from .base import Constant, Row, distinct

Progress = Callable[[int, int], None]
BATCH_TOKENS = 1024  # run through the model at once: more were slower on a CPU
WINDOW = 4  # batches whose rows are sorted by length together
BUDGET_SHARE = 0.4  # of the memory that is free, where the user names no budget


@final
class RamStore:
    """Computes rows when they are first read, and keeps them on the model's device.

    A row is always computed with the same others (`chunks`), so that its numbers do not depend on when it is
    read, and a resumed run reads the same numbers as before.
    """

    def __init__(self, kept: Constant, chunks: Iterable[Sequence[Example]]) -> None:
        self._kept, self._rows = kept, dict[str, Row]()
        self._chunks = {kept.name(example): chunk for chunk in chunks for example in chunk}

    @property
    def bytes(self) -> int:
        """Return the memory that the rows take."""
        return sum(t.numel() * t.element_size() for row in self._rows.values() for t in row)

    def row(self, name: str) -> Row:
        """Return a row, not a copy of it.

        Where memory runs out, all rows are dropped and it is computed again.
        """
        if name not in self._rows:
            chunk = self._chunks[name]
            try:
                rows = self._kept.compute(chunk)
            except (MemoryError, RuntimeError) as error:
                if not self._rows or not (isinstance(error, MemoryError) or "memory" in str(error).lower()):
                    raise
                self._rows.clear()
                rows = self._kept.compute(chunk)
            self._rows.update(zip(map(self._kept.name, chunk), rows, strict=True))
        return self._rows[name]

    def fill(self, progress: Progress | None = None) -> None:
        """Compute the rows that are missing. `progress(done, total)` counts distinct inputs."""
        for name in self._chunks:
            known = len(self._rows)
            self.row(name)
            if progress and len(self._rows) > known:
                progress(len(self._rows), len(self._chunks))


def lazily(
    kept: Constant,
    examples: Sequence[Example],
    first: Sequence[Example] = (),
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> RamStore:
    """Make a store of every distinct input, without computing any.

    `first` will be read in about this order.
    """
    ahead = list({kept.name(e): e for e in first}.values())
    # sorting by length saves padding; only the rows of a few steps are sorted together, as a run may end
    # early
    windows = by_tokens(range(len(ahead)), [kept.tokens(e) for e in ahead], WINDOW * batch_tokens)
    ahead = [e for window in windows for e in sorted((ahead[i] for i in window), key=kept.tokens)]
    known = {kept.name(e) for e in ahead}
    rest = [e for e in distinct(kept, examples) if kept.name(e) not in known]
    return RamStore(kept, (*_chunks(kept, ahead, batch_tokens), *_chunks(kept, rest, batch_tokens)))


def build(
    kept: Constant,
    examples: Sequence[Example],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> RamStore:
    """Compute every distinct input now, once."""
    store = lazily(kept, examples, batch_tokens=batch_tokens)
    store.fill(progress)
    return store


def _chunks(kept: Constant, inputs: Sequence[Example], batch_tokens: int) -> Iterator[list[Example]]:
    for chunk in by_tokens(range(len(inputs)), [kept.tokens(e) for e in inputs], batch_tokens):
        yield [inputs[i] for i in chunk]


def default_budget(device: str = "cpu") -> int:
    """Return the bytes that the cache may take: a share of the memory that is free now."""
    return int(BUDGET_SHARE * free_memory(device))
