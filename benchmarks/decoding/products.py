"""Products of few rows with SmolLM2's weights, in every form that torch has for frozen weights.

Each shape has as many different weights as exceed the processor's caches, as the layers of a model do. A
line sums a whole forward pass of the model. An error is the distance from the product in float32, relative
to its size, with weights that 16 bits hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.training.clock import now
from benchmarks.training.line import Line
from softprompt.lm.library_internals import float16_product, onednn_product

from .subject import Subject, best

LAYERS = 30
SHAPES = {(576, 576): 2, (192, 576): 2, (1536, 576): 2, (576, 1536): 1}  # [out, in]: how many in a layer
HEAD = (49152, 576)
ROWS = (1, 8, 64, 512)
COLD = 2**25  # numbers in the weights of a shape
Product = Callable[[Tensor], Tensor]


@torch.no_grad()
def measure(subject: Subject) -> Iterator[Line]:
    """Yield a line for each precision, form and number of rows."""
    shapes = {(24, 16): 1} if subject.is_short else SHAPES
    head, cold = ((48, 16), 2**8) if subject.is_short else (HEAD, COLD)
    for rows in ROWS[:2] if subject.is_short else ROWS:
        totals: dict[str, float] = {}
        errors: dict[str, float] = {}
        for shape, count in [*shapes.items(), (head, 1)]:
            copies = max(1, cold // (shape[0] * shape[1]))
            weights = [torch.randn(shape).mul_(0.05).bfloat16().float() for _ in range(copies)]
            vectors, products = torch.randn(rows, shape[1]), _forms(weights)
            right = linear(vectors, weights[0])
            for name, each in products.items():
                error = ((each[0](vectors).float() - right).norm() / right.norm()).item()
                errors[name] = max(error, errors.get(name, 0.0))
            sides = {name: partial(_all, each, vectors) for name, each in products.items()}
            times = best(sides, subject.repeats, now)
            times_run = count * (1 if shape == head else LAYERS)
            for name, seconds in times.items():
                totals[name] = totals.get(name, 0.0) + times_run * seconds / copies
        for name, seconds in totals.items():
            plain = totals["float32"]
            note = f"error {errors[name]:.0e}"
            case = f"{rows} row{'s' * (rows > 1)}, {name}"
            yield Line("products", case, 1000 * seconds, 1000 * plain, "ms", plain / seconds, note=note)


def _all(products: list[Product], vectors: Tensor) -> None:
    for product in products:
        product(vectors)


def _forms(weights: list[Tensor]) -> dict[str, list[Product]]:
    """Return the products of each form that this processor and this torch have."""
    makers = {
        "float32": lambda weight: partial(linear, weight=weight),
        "float32 in oneDNN's layout": lambda weight: onednn_product(weight, None),
        "float16 weights (held)": lambda weight: float16_product(weight, None),
        "bfloat16": lambda weight: _rounded(partial(linear, weight=weight.bfloat16())),
        "bfloat16 in oneDNN's layout": lambda weight: _rounded(onednn_product(weight.bfloat16(), None)),
        "int8 weights": _int8,
        "int8 weights and vectors": _dynamic,
    }
    forms: dict[str, list[Product]] = {}
    for name, make in makers.items():
        try:
            forms[name] = [make(weight) for weight in weights]
            forms[name][0](torch.randn(2, weights[0].shape[1]))
        except (RuntimeError, AttributeError):
            forms.pop(name, None)
    return forms


def _rounded(product: Product) -> Product:
    return lambda vectors: product(vectors.bfloat16())


def _scaled(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 weights and a scale for each output."""
    scale = weight.abs().amax(1) / 127
    return torch.round(weight / scale[:, None]).to(torch.int8), scale


def _int8(weight: Tensor) -> Product:
    whole, scale = _scaled(weight)
    return _rounded(lambda vectors: torch._weight_int8pack_mm(vectors, whole, scale.bfloat16()))


def _dynamic(weight: Tensor) -> Product:
    _, scale = _scaled(weight)
    zeros = torch.zeros(len(weight), dtype=torch.long)
    ops = torch.ops.quantized
    packed = ops.linear_prepack(
        torch.quantize_per_channel(weight, scale.double(), zeros, 0, torch.qint8), None
    )
    return lambda vectors: ops.linear_dynamic(vectors, packed, True)
