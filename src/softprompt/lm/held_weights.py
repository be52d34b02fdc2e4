"""On a CPU, frozen weights are read from a second form of them that is faster to read.

A step of few rows takes about as long as its weights take to be read from memory. The second form is

- of bfloat16 weights: oneDNN's own layout. Every number stays the same, to the bit;
- of float32 weights that float16 holds exactly, as those of any checkpoint in 16 bits: float16, half of the
  bytes. They are multiplied as float32, and sums differ by rounding;
- of other float32 weights, where MKL is not at home: oneDNN's layout; sums differ by rounding;
- of int8 weights: torch's product of them with vectors in bfloat16, which rounds the vectors.

Decoding reads it, and a run that is set up for it (`for_run`) reads it in its steps and where it builds
caches. Only plain linear layers are held, of models that this library has loaded with `weights="auto"` or
`"int8"`, and where memory is ample. docs/performance.md has the figures, and what else was tried. This file
knows nothing of rows.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .._system.memory import free_memory
from .base import LanguageModel
from .held_products import FEW, TOLERANCE, Product, fits_float16, forward_of, is_intel, make, with_gradient
from .int8_weights import Int8Linear, held_numbers

LEAST = 2**25  # bytes of all weights: smaller ones stay in the processor's caches
MEMORY = 0.25  # share of the free memory
SAMPLE = 64  # numbers of a weight that are compared
STEPS = 32  # of a run, from which on holding weights takes less time than it saves


@dataclass(frozen=True, slots=True)
class _Layer:
    """A linear layer and its weight as it was when it was held."""

    module: Any  # nn.Linear or Int8Linear
    weight: Tensor
    version: int
    address: int  # `weight.data = …`, as `to` does it, leaves the version as it was
    sample: Tensor  # in-place changes of `weight.data` leave both
    product: Product

    @property
    def is_current(self) -> bool:
        weight = held_numbers(self.module)
        is_same = weight is self.weight and weight.data_ptr() == self.address
        return is_same and weight._version == self.version and not weight.requires_grad

    @property
    def has_same_numbers(self) -> bool:
        return torch.equal(_sample(held_numbers(self.module)), self.sample)


@final
class HeldWeights:
    """Layers that read their held weights inside `with`, in any thread; it may be entered many times."""

    def __init__(self, layers: Sequence[_Layer], gradient: bool) -> None:
        """`gradient` says whether a backward pass reads them too."""
        self.layers, self.gradient = tuple(layers), gradient
        self._lock, self._entered = threading.Lock(), 0

    @property
    def is_current(self) -> bool:
        """Return whether no weight has changed since it was held."""
        return all(layer.is_current for layer in self.layers)

    @property
    def has_same_numbers(self) -> bool:
        """Return whether the weights have the numbers that they had, by a sample of each."""
        return self.is_current and all(layer.has_same_numbers for layer in self.layers)

    def __enter__(self) -> None:
        with self._lock:
            self._entered += 1
            for layer in self.layers:
                vars(layer.module)["forward"] = layer.product

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._entered -= 1
            # a step may compute the cached inputs that it reads, which enters once more
            for layer in self.layers if not self._entered else ():
                if vars(layer.module).get("forward") is layer.product:  # not of weights that were held since
                    del vars(layer.module)["forward"]


_HELD: WeakKeyDictionary[nn.Module, HeldWeights] = WeakKeyDictionary()
_INEXACT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # tried once; with gradient


def known(lm: LanguageModel) -> contextlib.AbstractContextManager[None]:
    """Return the held weights of a model; a context that does nothing where it holds none."""
    held = _HELD.get(lm.model)
    return held if held is not None and held.is_current else contextlib.nullcontext()


@torch.no_grad()
def check(lm: LanguageModel) -> None:
    """Forget what is held of a model whose weights are not what they were: a few milliseconds.

    One that has adapters now is forgotten too: its run must not depend on what was held before.
    """
    held = _HELD.get(lm.model)
    if held is not None and (_has_adapters(lm) or not held.has_same_numbers):
        _HELD.pop(lm.model, None)


@torch.no_grad()
def hold(lm: LanguageModel, *, gradient: bool = False) -> None:
    """Hold a model's weights where that pays and is exact; it takes about a second for 10⁸ weights.

    With `gradient` a backward pass reads held weights too: float32 ones are held once more, transposed.
    """
    check(lm)
    held = _HELD.get(lm.model)
    if held is not None and (held.gradient or not gradient):
        return
    if lm.model in _INEXACT and _INEXACT[lm.model] <= gradient:  # it is no better with a gradient
        return
    modules = _modules(lm)
    size = sum(weight.numel() * weight.itemsize for weight in map(held_numbers, modules))
    if not modules or size < LEAST or size > MEMORY * free_memory():
        return
    kind, layers, passes = _kind(lm, modules), [], True
    for module in modules:
        weight = held_numbers(module)
        each = "int8" if isinstance(module, Int8Linear) else kind
        if each is None:
            continue
        if (products := make(module, each, gradient=gradient)) is None:
            if each == "int8":  # torch has no product for its size
                continue
            _INEXACT[lm.model] = gradient
            return
        product = forward_of(module, products)
        layers.append(_Layer(module, weight, weight._version, weight.data_ptr(), _sample(weight), product))
        passes = passes and products.backward is not None
    if layers:
        _HELD[lm.model] = HeldWeights(layers, passes)


_RUN: ContextVar[HeldWeights | None] = ContextVar("_RUN", default=None)


@contextlib.contextmanager
def for_run(lm: LanguageModel, positions: int, steps: int) -> Iterator[bool]:
    """Hold weights for a run of so many steps of so many positions; yield whether they move its numbers.

    Whether they are held does not depend on what else this process has done: a resumed run gets the numbers
    of one that was not stopped, unless memory was short in one of them.
    """
    few = lm.dtype != torch.float32 or not is_intel() or positions <= FEW
    held = None
    if few and steps >= STEPS and lm.weights == "auto":
        hold(lm, gradient=True)
        held = _HELD.get(lm.model)
    held = held if held is not None and held.gradient else None
    token = _RUN.set(held)
    try:
        yield held is not None and lm.dtype == torch.float32
    finally:
        _RUN.reset(token)


@contextlib.contextmanager
def in_steps(lm: LanguageModel) -> Iterator[None]:
    """Read the held weights of a run (`for_run`) inside, with gradient and without, if it has any."""
    held = _RUN.get()
    if held is None or held is not _HELD.get(lm.model) or not held.is_current:
        yield
        return
    token = with_gradient.set(True)
    try:
        with held:
            yield
    finally:
        with_gradient.reset(token)


def _kind(lm: LanguageModel, modules: Sequence[Any]) -> str | None:
    """Return the form that a model's weights are held in; None where no form is faster."""
    if lm.dtype != torch.float32:
        return "onednn"
    plain = (module.weight for module in modules if type(module) is nn.Linear)
    if all(fits_float16(weight) for weight in plain):
        return "float16"
    return None if is_intel() else "onednn"


def _modules(lm: LanguageModel) -> list[Any]:
    """Return the plain linear layers of a model whose weights may be held; none where it has adapters."""
    if not lm.is_loaded_here or lm.device.type != "cpu" or lm.dtype not in TOLERANCE:
        return []
    if lm.weights not in ("auto", "int8"):
        return []
    if _has_adapters(lm):
        return []
    return [
        module
        for module in lm.model.modules()
        if _is_plain(module, lm.dtype)
        and "forward" not in vars(module)  # else another library runs it
        and not held_numbers(module).requires_grad
        and held_numbers(module).device.type == "cpu"
    ]


def _has_adapters(lm: LanguageModel) -> bool:
    """Return whether a model has LoRA weights: they may be merged into the others."""
    return any("lora_" in name for name, _ in lm.model.named_modules())


def _is_plain(module: nn.Module, kind: torch.dtype) -> bool:
    if isinstance(module, Int8Linear):
        return True
    # torchao's quantized weights are of other types
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter and module.weight.dtype == kind


def _sample(weight: Tensor) -> Tensor:
    numbers = weight.detach().reshape(-1)
    return numbers[:: len(numbers) // SAMPLE | 1].clone()  # odd: in all columns
