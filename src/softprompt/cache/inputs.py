"""The caches of a list of examples, as training and evaluation read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from ..data.collate import Batch
from ..data.example import Example
from ..lm.context import Context
from ..methods.base import Features, Reads
from .base import Cache


@final
@dataclass(frozen=True, slots=True)
class InputCache:
    """Keys and values, features, both or neither, by the examples' numbers."""

    contexts: Cache[Context] | None = None
    features: Cache[Features] | None = None
    reads: Reads | None = None  # the part of the input that `features` hold

    def context(self, indices: Sequence[int]) -> Context | None:
        """Return the context of a batch of rows; None where it is not kept."""
        return None if self.contexts is None else self.contexts.batch(indices)

    def of(self, examples: Sequence[Example]) -> InputCache:
        """Return the caches of other examples, whose inputs are all kept here too."""
        if self.contexts is None:
            return InputCache()
        return InputCache(Cache(self.contexts.kept, self.contexts.store, examples))

    def fill(self, batch: Batch, indices: Sequence[int], reads: Reads | None) -> Batch:
        """Add the features of these rows to their batch, where those that `reads` names are kept."""
        if self.features is None or reads is None or reads != self.reads:
            return batch
        features = self.features.batch(indices)
        return replace(batch, features=features.values, features_mask=features.mask)
