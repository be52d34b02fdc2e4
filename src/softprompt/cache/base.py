"""The interface between caches and the constants of inputs that they keep.

A row holds the constant of one input, as a list of tensors. A `Constant` names rows, knows their sizes,
computes them and joins them into a batch; a `Store` keeps them. There are two constants: keys and values
(`kv.KeyValues`) and the features that a generated prompt reads (`features.InputFeatures`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar, final

from torch import Tensor

from ..data.example import Example

Row = list[Tensor]
Value = TypeVar("Value", covariant=True)


class Constant(Protocol[Value]):
    """A function of an input that is the same in every run over the same base model."""

    @property
    def content(self) -> str:
        """Name the constant for people: "keys and values"."""
        ...

    @property
    def key(self) -> str:
        """Identify everything that the numbers depend on besides the input."""
        ...

    def name(self, example: Example) -> str:
        """Name the row of an example's input."""
        ...

    def tokens(self, example: Example) -> int:
        """Count the positions that a row holds."""
        ...

    def bytes_needed(self, examples: Iterable[Example]) -> int:
        """Add up the bytes of these examples' rows."""
        ...

    def compute(self, examples: Sequence[Example]) -> list[Row]:
        """Compute the rows of a few examples."""
        ...

    def assemble(self, rows: Sequence[Row]) -> Value:
        """Join rows into a batch on the model's device."""
        ...


class Store(Protocol):
    """Keeps rows by name."""

    @property
    def bytes(self) -> int:
        """Return the size of all rows that are kept."""
        ...

    def row(self, name: str) -> Row:
        """Return a row, which must not be written to."""
        ...


@final
class Cache(Generic[Value]):
    """Looks up the constant of each of a list of examples by its number in the list."""

    def __init__(self, kept: Constant[Value], store: Store, examples: Sequence[Example]) -> None:
        self.kept, self.store = kept, store
        self._names = [kept.name(e) for e in examples]

    @property
    def bytes(self) -> int:
        """Return the size of the whole store, which other caches may share."""
        return self.store.bytes

    def __len__(self) -> int:
        return len(self._names)

    def batch(self, indices: Sequence[int]) -> Value:
        """Join the rows of these examples into a batch."""
        return self.kept.assemble([self.store.row(self._names[i]) for i in indices])


def distinct(kept: Constant, examples: Iterable[Example]) -> list[Example]:
    """Return one example for each distinct input, in an order that is the same in every run."""
    by_name = {kept.name(e): e for e in examples}
    return [by_name[name] for name in sorted(by_name, key=lambda n: (len(by_name[n].input_ids), n))]
