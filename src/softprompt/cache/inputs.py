"""All that is kept of a list of examples, as training and evaluation ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from ..data.collate import Batch
from ..lm.context import Context
from ..methods.base import Features, Reads
from .base import Cache


@final
@dataclass(frozen=True, slots=True)
class InputCache:
    """Keys and values, what a generated prompt reads, both or neither; by the examples' numbers."""

    contexts: Cache[Context] | None = None
    features: Cache[Features] | None = None
    reads: Reads | None = None  # what `features` are

    def context(self, indices: Sequence[int]) -> Context | None:
        """The context of a batch of rows; None where it is not kept."""
        return None if self.contexts is None else self.contexts.batch(indices)

    def fill(self, batch: Batch, indices: Sequence[int], reads: Reads | None) -> Batch:
        """The batch of these rows with what a prompt that reads `reads` will ask for, where it is kept."""
        if self.features is None or reads is None or reads != self.reads:
            return batch
        found = self.features.batch(indices)
        return replace(batch, features=found.values, features_mask=found.mask)
