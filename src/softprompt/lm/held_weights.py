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
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .._system.memory import free_memory
from .base import LanguageModel
from .held_layers import HeldWeights, Layer, is_free, sample_of
from .held_products import (
    FEW,
    TOLERANCE,
    bytes_of,
    fits_float16,
    forward_of,
    is_intel,
    make,
    with_gradient,
)
from .int8_weights import Int8Linear, held_numbers

LEAST = 2**25  # bytes of all weights: smaller ones stay in the processor's caches
MEMORY = 0.25  # share of the free memory
STEPS = 32  # of a run, from which on holding weights takes less time than it saves


_HOLDING = threading.RLock()  # threads hold weights one after the other
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

    With `gradient` a backward pass reads held weights too: float32 ones are held once more, transposed. They
    are held as long as the model is in memory, so that the next run need not make them.
    """
    with _HOLDING:
        _hold(lm, gradient)


def _hold(lm: LanguageModel, gradient: bool) -> None:
    check(lm)
    held = _HELD.get(lm.model)
    if held is not None and (held.gradient or not gradient):
        return
    layers, passes = [], True
    for module, kind in _forms(lm, gradient):
        weight = held_numbers(module)
        if (products := make(module, kind, gradient=gradient)) is None:
            if kind == "int8":  # torch has no product for its size
                continue
            _INEXACT[lm.model] = gradient
            return
        product = forward_of(module, products)
        layers.append(Layer(module, weight, weight._version, weight.data_ptr(), sample_of(weight), product))
        passes = passes and products.backward is not None
    if layers:
        _HELD[lm.model] = HeldWeights(layers, passes)


def _forms(lm: LanguageModel, gradient: bool) -> list[tuple[Any, str]]:
    """Return the layers that are held, each with its form; none where that does not pay or fit in memory."""
    if lm.model in _INEXACT and _INEXACT[lm.model] <= gradient:  # it is no better with a gradient
        return []
    modules = _modules(lm)
    size = sum(weight.numel() * weight.itemsize for weight in map(held_numbers, modules))
    if not modules or size < LEAST:
        return []
    kind = _kind(lm, modules)
    kinds = [(module, "int8" if isinstance(module, Int8Linear) else kind) for module in modules]
    forms = [(module, each) for module, each in kinds if each is not None]
    needed = sum(bytes_of(held_numbers(module), each, gradient=gradient) for module, each in forms)
    return forms if needed <= MEMORY * free_memory() else []


_RUN: ContextVar[HeldWeights | None] = ContextVar("_RUN", default=None)


@contextlib.contextmanager
def for_run(lm: LanguageModel, positions: int, steps: int) -> Iterator[bool]:
    """Hold weights for a run of so many steps of so many positions; yield whether they move its numbers.

    Whether they are held does not depend on what else this process has done: a resumed run gets the numbers
    of one that was not stopped, unless memory was short in one of them.
    """
    held = None
    if _pays(lm, positions, steps):
        with _HOLDING:
            hold(lm, gradient=True)
            held = _HELD.get(lm.model)
    held = held if held is not None and held.gradient else None
    token = _RUN.set(held)
    try:
        yield held is not None and lm.dtype == torch.float32
    finally:
        _RUN.reset(token)


def _pays(lm: LanguageModel, positions: int, steps: int) -> bool:
    if steps < STEPS or lm.weights != "auto":
        return False
    return lm.dtype != torch.float32 or not is_intel() or positions <= FEW


def rounds(lm: LanguageModel) -> bool:
    """Return whether the steps of this run read held weights, whose sums differ by rounding."""
    held = _RUN.get()
    return held is not None and held is _HELD.get(lm.model) and lm.dtype == torch.float32


@torch.no_grad()
def will_round(lm: LanguageModel, positions: int, steps: int) -> bool:
    """Return whether a run (see `for_run`) would get other numbers than plain weights', by what is free now.

    Nothing is held by this. Products are not tried, so it may be wrong where this processor's are not exact.
    """
    if not _pays(lm, positions, steps) or lm.dtype != torch.float32:
        return False
    held = _HELD.get(lm.model)
    if held is not None and held.gradient and held.has_same_numbers and not _has_adapters(lm):
        return True
    return bool(_forms(lm, True))


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
        and is_free(module)
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
