"""A thread reads layers from held weights, or plainly, whatever other threads do with the same model.

A layer's `forward` is replaced while any thread reads held weights. What the replacement runs is decided by
a context variable, so it is the held product in the threads that have entered, and the plain layer in all
others. This file knows nothing of how weights are held.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from .held_products import Product
from .int8_weights import held_numbers

SAMPLE = 64  # numbers of a weight that are compared

#: The products that layers take in this thread, innermost last.
_reading: ContextVar[tuple[Mapping[nn.Module, Product], ...]] = ContextVar("_reading", default=())
_ENTERING = threading.Lock()


@final
class Reader:
    """Takes the place of a layer's `forward`: runs the product that this thread reads, or the plain layer."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.users = 0  # sets of held weights that are entered, in all threads together

    def __call__(self, input: Tensor) -> Tensor:
        for products in reversed(_reading.get()):
            if (product := products.get(self._module)) is not None:
                return product(input)
        return type(self._module).forward(self._module, input)


def is_free(module: nn.Module) -> bool:
    """Return whether no other library has put a `forward` of its own in the place of the layer's."""
    return isinstance(vars(module).get("forward"), Reader | None)


@dataclass(frozen=True, slots=True)
class Layer:
    """Holds a linear layer and its weight as it was when it was held."""

    module: Any  # nn.Linear or Int8Linear
    weight: Tensor
    version: int
    address: int  # `weight.data = …`, as `to` does it, leaves the version as it was
    sample: Tensor  # in-place changes of `weight.data` leave both
    product: Product

    @property
    def is_current(self) -> bool:
        weight = held_numbers(self.module)
        if not is_free(self.module):
            return False
        is_same = weight is self.weight and weight.data_ptr() == self.address
        return is_same and weight._version == self.version and not weight.requires_grad

    @property
    def has_same_numbers(self) -> bool:
        return torch.equal(sample_of(held_numbers(self.module)), self.sample)


@final
class HeldWeights:
    """Layers that read their held weights inside `with`, in this thread; it may be entered many times.

    The passes of other threads on the same model are not changed.
    """

    def __init__(self, layers: Sequence[Layer], gradient: bool) -> None:
        """`gradient` says whether a backward pass reads them too."""
        self.layers, self.gradient = tuple(layers), gradient
        self._products = {layer.module: layer.product for layer in layers}
        self._readers: dict[nn.Module, Reader] = {}
        self._entered = 0

    @property
    def is_current(self) -> bool:
        """Return whether no weight, and no layer's `forward`, has changed since it was held."""
        return all(layer.is_current for layer in self.layers)

    @property
    def has_same_numbers(self) -> bool:
        """Return whether the weights have the numbers that they had, by a sample of each."""
        return self.is_current and all(layer.has_same_numbers for layer in self.layers)

    def __enter__(self) -> None:
        with _ENTERING:
            self._entered += 1
            if self._entered == 1:
                self._readers = {module: _reader(module) for module in self._products}
        _reading.set((*_reading.get(), self._products))

    def __exit__(self, *error: object) -> None:
        inside = _reading.get()
        # a step may compute the cached inputs that it reads, which enters once more
        last = max(i for i, products in enumerate(inside) if products is self._products)
        _reading.set(inside[:last] + inside[last + 1 :])
        with _ENTERING:
            self._entered -= 1
            for module, reader in self._readers.items() if not self._entered else ():
                reader.users -= 1
                if not reader.users and vars(module).get("forward") is reader:
                    del vars(module)["forward"]


@contextlib.contextmanager
def plain_layers() -> Iterator[None]:
    """Run layers plainly inside, in this thread, whatever held weights it has entered."""
    token = _reading.set(())
    try:
        yield
    finally:
        _reading.reset(token)


def _reader(module: nn.Module) -> Reader:
    """Return the reader of a layer, which other weights that were held may use already."""
    reader = vars(module).get("forward")
    if not isinstance(reader, Reader):
        reader = vars(module)["forward"] = Reader(module)
    reader.users += 1
    return reader


def sample_of(weight: Tensor) -> Tensor:
    """Return numbers of a weight that a change of it would move: every so many, in all columns."""
    numbers = weight.detach().reshape(-1)
    return numbers[:: len(numbers) // SAMPLE | 1].clone()  # odd
