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
ROUNDED = 2.0**-25  # half of float16's smallest step
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}  # of a tried product's size

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A linear layer and its weight as it was when it was held."""

    module: nn.Linear
    weight: Tensor
    version: int
    product: Product

    @property
    def is_current(self) -> bool:
        weight = self.module.weight
        return weight is self.weight and weight._version == self.version and not weight.requires_grad


@final
class HeldWeights:
    """Layers that read their held weights inside `with`, in any thread; it may be entered many times."""

    def __init__(self, layers: Sequence[_Layer]) -> None:
        self.layers = tuple(layers)

    @property
    def is_current(self) -> bool:
        """Return whether no weight has changed since it was held."""
        return all(layer.is_current for layer in self.layers)

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
def hold(lm: LanguageModel) -> None:
    """Hold a model's weights where that pays and is exact; it takes about a second for 10⁸ weights."""
    held = _HELD.get(lm.model)
    if held is not None and held.is_current:
        return
    _HELD.pop(lm.model, None)
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
        layers.append(
            _Layer(module, module.weight, module.weight._version, _without_gradient(module, product))
        )
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
        and "forward" not in vars(module)  # else another library runs it
        and not module.weight.requires_grad
        and module.weight.dtype == lm.dtype
        and module.weight.device.type == "cpu"
    ]


def _fits_float16(weight: Tensor) -> bool:
    return bool((weight.half().float() - weight).abs().max() <= ROUNDED)


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
