"""While a CPU decodes, frozen weights are read from a second form of them that is faster to read.

A step of few rows takes about as long as its weights take to be read from memory. The second form is

- of bfloat16 weights: oneDNN's own layout. Every number stays the same, to the bit;
- of float32 weights that float16 holds exactly, as those of any checkpoint in 16 bits: float16, half of the
  bytes. They are multiplied as float32, and sums differ by rounding;
- of other float32 weights: oneDNN's layout; sums differ by rounding.

Only plain linear layers are held, of models that this library has loaded, outside of a gradient, and where
memory is ample. Training and the building of caches never use it. docs/performance.md has the figures, and
what else was tried. This file knows nothing of rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .._system.memory import free_memory
from .base import LanguageModel
from .library_internals import float16_product, onednn_product

LEAST = 2**25  # bytes of all weights: smaller ones stay in the processor's caches
MEMORY = 0.25  # share of the free memory
SAMPLE = 64  # numbers of a weight that are compared
ROUNDED = 2.0**-25  # half of float16's smallest step
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}  # of a tried product's size

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A linear layer and its weight as it was when it was held."""

    module: nn.Linear
    weight: Tensor
    version: int
    address: int  # `weight.data = …`, as `to` does it, leaves the version as it was
    sample: Tensor  # in-place changes of `weight.data` leave both
    product: Product

    @property
    def is_current(self) -> bool:
        weight = self.module.weight
        is_same = weight is self.weight and weight.data_ptr() == self.address
        return is_same and weight._version == self.version and not weight.requires_grad

    @property
    def has_same_numbers(self) -> bool:
        return torch.equal(_sample(self.module.weight), self.sample)


@final
class HeldWeights:
    """Layers that read their held weights inside `with`, in any thread; it may be entered many times."""

    def __init__(self, layers: Sequence[_Layer]) -> None:
        self.layers = tuple(layers)

    @property
    def is_current(self) -> bool:
        """Return whether no weight has changed since it was held."""
        return all(layer.is_current for layer in self.layers)

    @property
    def has_same_numbers(self) -> bool:
        """Return whether the weights have the numbers that they had, by a sample of each."""
        return self.is_current and all(layer.has_same_numbers for layer in self.layers)

    def __enter__(self) -> None:
        for layer in self.layers:
            vars(layer.module)["forward"] = layer.product

    def __exit__(self, *error: object) -> None:
        for layer in self.layers:
            vars(layer.module).pop("forward", None)


_HELD: WeakKeyDictionary[nn.Module, HeldWeights] = WeakKeyDictionary()


def known(lm: LanguageModel) -> contextlib.AbstractContextManager[None]:
    """Return the held weights of a model; a context that does nothing where it holds none."""
    held = _HELD.get(lm.model)
    return held if held is not None and held.is_current else contextlib.nullcontext()


@torch.no_grad()
def check(lm: LanguageModel) -> None:
    """Forget what is held of a model whose weights are not what they were: a few milliseconds."""
    held = _HELD.get(lm.model)
    if held is not None and not held.has_same_numbers:
        _HELD.pop(lm.model, None)


@torch.no_grad()
def hold(lm: LanguageModel) -> None:
    """Hold a model's weights where that pays and is exact; it takes about a second for 10⁸ weights."""
    check(lm)
    if lm.model in _HELD:
        return
    modules = _modules(lm)
    size = sum(module.weight.numel() * module.weight.itemsize for module in modules)
    if not modules or size < LEAST or size > MEMORY * free_memory():
        return
    in_float16 = lm.dtype == torch.float32 and all(_fits_float16(module.weight) for module in modules)
    make = float16_product if in_float16 else onednn_product
    layers = []
    for module in modules:
        try:
            product = make(module.weight, module.bias)
        except (RuntimeError, AttributeError):  # this build of torch, or this processor, has no such product
            return
        if not _is_exact(module, product):
            return
        weight, plain = module.weight, _without_gradient(module, product)
        layers.append(_Layer(module, weight, weight._version, weight.data_ptr(), _sample(weight), plain))
    _HELD[lm.model] = HeldWeights(layers)


def _modules(lm: LanguageModel) -> list[nn.Linear]:
    """Return the plain linear layers of a model whose weights may be held; none where it has adapters."""
    if not lm.is_loaded_here or lm.device.type != "cpu" or lm.dtype not in TOLERANCE:
        return []
    named = dict(lm.model.named_modules())
    if any("lora_" in name for name in named):  # they may be merged into the weights
        return []
    return [
        module
        for module in named.values()
        if type(module) is nn.Linear
        and type(module.weight) is nn.Parameter  # torchao's quantized weights are of other types
        and "forward" not in vars(module)  # else another library runs it
        and not module.weight.requires_grad
        and module.weight.dtype == lm.dtype
        and module.weight.device.type == "cpu"
    ]


def _fits_float16(weight: Tensor) -> bool:
    return bool((weight.half().float() - weight).abs().max() <= ROUNDED)


def _sample(weight: Tensor) -> Tensor:
    numbers = weight.detach().reshape(-1)
    return numbers[:: len(numbers) // SAMPLE | 1].clone()  # odd: in all columns


def _is_exact(module: nn.Linear, product: Product) -> bool:
    """Return whether a product is the layer's, tried on three rows."""
    rows = torch.linspace(-1, 1, 3 * module.in_features).cos().view(3, -1).to(module.weight.dtype)
    expected = linear(rows, module.weight, module.bias).float()
    return bool((product(rows).float() - expected).norm() <= TOLERANCE[module.weight.dtype] * expected.norm())


def _without_gradient(module: nn.Linear, product: Product) -> Product:
    weight, bias = module.weight, module.bias

    def forward(input: Tensor) -> Tensor:
        # another thread may train while this one decodes
        return linear(input, weight, bias) if torch.is_grad_enabled() else product(input)

    return forward
