"""A linear layer and its gradient are multiplied from a second form of its frozen weight.

A form is faster up to a number of rows: few rows take about as long as the weight takes to be read, which
is less in 16 bits than in 32; many rows take as long as the multiplications. This file knows nothing of
models.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .int8_weights import Int8Linear
from .library_internals import cpu_features, float16_product, int8_product, onednn_product

FEW = 32  # rows up to which float16 weights are faster than MKL's float32 on Intel (docs/performance.md)
INT8_FEW = 16  # the same for int8 weights: more rows are faster with the weights as floats
TRIED = 3  # rows that a product is tried on
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}  # of a tried product's size
INT8_TOLERANCE = 1e-2  # int8 weights are multiplied with vectors in bfloat16 there
ROUNDED = 2.0**-25  # half of float16's smallest step

Product = Callable[[Tensor], Tensor]

#: Whether layers run with gradient in this thread read their held weights; another may train plainly.
with_gradient: ContextVar[bool] = ContextVar("with_gradient", default=False)


@dataclass(frozen=True, slots=True)
class Products:
    """Holds a layer's product [..., in] → [..., out], and that of its gradient [..., out] → [..., in]."""

    forward: Product
    backward: Product | None = None  # None: no gradient passes through the held form
    most: int | None = None  # rows up to which it is faster; None: always


def fits_float16(weight: Tensor) -> bool:
    """Return whether float16 holds every number of a weight exactly, or to half of its smallest step."""
    return bool((weight.half().float() - weight).abs().max() <= ROUNDED)


def is_intel() -> bool:
    """Return whether MKL, which multiplies float32 for torch, takes its fastest kernels on this processor."""
    return str(cpu_features().get("cpu_name", "")).startswith("Intel")


def make(module: nn.Module, kind: str, *, gradient: bool) -> Products | None:
    """Return a layer's products in a form (`float16`, `onednn` or `int8`), None where it is not the layer's.

    The layer is a plain linear one or an `Int8Linear`. With `gradient` that of its output passes through too.
    """
    try:
        products = _made(module, kind, gradient)
        return products if _is_exact(module, products) else None
    except (RuntimeError, AttributeError):  # this build of torch, or this processor, has no such product
        return None


def _made(module: Any, kind: str, gradient: bool) -> Products:
    if kind == "int8":
        return Products(int8_product(module.numbers, module.scale, module.bias), most=INT8_FEW)
    weight = module.weight.detach()
    if kind == "float16":
        back = float16_product(weight.t().contiguous(), None) if gradient else None
        return Products(float16_product(weight, module.bias), back, FEW if is_intel() else None)
    if weight.dtype == torch.bfloat16:  # forward it is the same to the bit; another form is not, backward
        return Products(onednn_product(weight, module.bias), lambda above: above @ weight)
    back = onednn_product(weight.t().contiguous(), None) if gradient else None
    return Products(onednn_product(weight, module.bias), back)


def _is_exact(module: Any, products: Products) -> bool:
    """Return whether products are the layer's, tried on a few rows."""
    kind = module.weight.dtype
    allowed = INT8_TOLERANCE if isinstance(module, Int8Linear) else TOLERANCE[kind]
    rows = _rows(module.in_features, kind)
    pairs = [(products.forward(rows), type(module).forward(module, rows))]
    if products.backward is not None:
        above = _rows(module.out_features, kind)
        pairs.append((products.backward(above), above @ module.weight))
    return all(
        bool((held.float() - plain.float()).norm() <= allowed * plain.float().norm()) for held, plain in pairs
    )


def _rows(width: int, kind: torch.dtype) -> Tensor:
    # of either sign in no order: of a smooth row large parts of a sum cancel, and rounding looks large
    numbers = torch.arange(TRIED * width).mul(7919).remainder(1009).sub(504) / 504
    return numbers.view(TRIED, -1).to(kind)


def forward_of(module: Any, products: Products) -> Product:
    """Return the function that runs a layer from its held weight where that is faster and allowed."""
    plain = partial(type(module).forward, module)
    if type(module) is nn.Linear:
        plain = partial(linear, weight=module.weight, bias=module.bias)
    most = None if products.most is None else products.most * module.in_features

    def forward(input: Tensor) -> Tensor:
        if most is not None and input.numel() > most:
            return plain(input)
        if not torch.is_grad_enabled():
            return products.forward(input)
        # a pass that decodes may be run with gradient
        if products.backward is None or not with_gradient.get():
            return plain(input)
        return _WithGradient.apply(input, products) if input.requires_grad else products.forward(input)  # type: ignore[return-value]

    return forward


def bytes_of(weight: Tensor, kind: str, *, gradient: bool) -> int:
    """Return the bytes that a weight takes in a form, beside itself; int8 products read the weight itself."""
    if kind == "int8":
        return 0
    size = 2 if kind == "float16" else weight.itemsize
    # it is held once more, transposed; in bfloat16 the gradient reads the plain weight
    twice = gradient and weight.dtype == torch.float32
    return weight.numel() * size * (2 if twice else 1)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, products: Products) -> Tensor:
        ctx.backward_product = products.backward
        return products.forward(input)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.backward_product(gradients[0]), None
