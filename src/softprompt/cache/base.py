"""What may be kept of inputs, told to `ram` and `disk` by four functions; and the cache of some inputs.

A row is what is kept of one input, as a list of tensors; `Constant` says how it is named, how large it is,
how it is computed and how rows become a batch. Two things are kept: keys and values (`rows.KeyValues`)
and what a generated prompt reads (`features.InputFeatures`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar, final

from torch import Tensor

from ..data.example import Example

Row = list[Tensor]
Value = TypeVar("Value", covariant=True)


class Constant(Protocol[Value]):
    """A constant of the input: the same for whoever asks, in every run over the same base."""

    @property
    def what(self) -> str:
        """For people: "keys and values"."""
        ...

    @property
    def key(self) -> str:
        """A name of all that its numbers depend on besides the input."""
        ...

    def name(self, example: Example) -> str:
        """The name of an example's row: that of its input."""
        ...

    def tokens(self, example: Example) -> int:
        """Positions that a row holds."""
        ...

    def bytes_needed(self, examples: Iterable[Example]) -> int:
        """Of these examples' rows."""
        ...

    def compute(self, examples: Sequence[Example]) -> list[Row]:
        """The rows of a few examples."""
        ...

    def assemble(self, rows: Sequence[Row]) -> Value:
        """Rows as a batch's, on the model's device."""
        ...


class Store(Protocol):
    """Rows by name, wherever they are."""

    @property
    def bytes(self) -> int:
        """What it holds."""
        ...

    def row(self, name: str) -> Row:
        """Not to be written to."""
        ...


@final
class Cache(Generic[Value]):
    """What is kept of a list of examples, by their numbers in it."""

    def __init__(self, kept: Constant[Value], store: Store, examples: Sequence[Example]) -> None:
        self.kept, self.store = kept, store
        self._names = [kept.name(e) for e in examples]

    @property
    def bytes(self) -> int:
        """Of the whole store, which other caches may share."""
        return self.store.bytes

    def __len__(self) -> int:
        return len(self._names)

    def batch(self, indices: Sequence[int]) -> Value:
        """Of these examples."""
        return self.kept.assemble([self.store.row(self._names[i]) for i in indices])


def distinct(kept: Constant, examples: Iterable[Example]) -> list[Example]:
    """One example for each input that occurs, by length and name: the order is that of no run."""
    by_name = {kept.name(e): e for e in examples}
    return [by_name[name] for name in sorted(by_name, key=lambda n: (len(by_name[n].input_ids), n))]
