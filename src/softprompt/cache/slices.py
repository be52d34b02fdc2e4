"""A stretch of a cache as a cache of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows `start` to `start + count` of `whole`, counted from 0."""

    whole: Any  # a ContextCache
    start: int
    count: int

    @property
    def bytes(self) -> int:
        """Of the whole."""
        return self.whole.bytes

    def __len__(self) -> int:
        return self.count

    def context(self, indices: Sequence[int], lm: Any) -> Any:
        """As the whole's."""
        return self.whole.context([self.start + index for index in indices], lm)
