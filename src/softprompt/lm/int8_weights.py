"""The weights of frozen linear layers are held as int8, with one scale for each output: `weights="int8"`.

    w[o, i] ≈ q[o, i] · s[o]        s[o] = max |w[o, :]| / 127

A product makes floats of q, which any precision holds exactly, so it is that of the rounded weights, and so
is the gradient, to the precision of the vectors. Only the weights are rounded. (float16 cannot hold sums of
such large numbers: there, floats are made of q · s.) The layers of a model are
converted after it has been loaded and measured. The table of tokens and a head stay as they are.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..errors import SoftPromptError
from .quantization import of_model

NUMBERS = "numbers"  # the name under which a layer holds its int8 weight


@final
class Int8Linear(nn.Module):
    """A frozen linear layer has int8 `numbers` [out, in], a `scale` [out] in float32, and its bias."""

    numbers: Tensor
    scale: Tensor
    like: Tensor

    def __init__(self, layer: nn.Linear, original: Tensor) -> None:
        """`original` are the numbers of the layer's weight that its model's fingerprint reads."""
        super().__init__()
        self.in_features, self.out_features, self.original = layer.in_features, layer.out_features, original
        numbers, scale = rounded(layer.weight.detach())
        self.register_buffer(NUMBERS, numbers)
        self.register_buffer("scale", scale)
        # it has the precision that the layer is moved to
        self.register_buffer("like", layer.weight.new_empty(0).detach(), persistent=False)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @property
    def weight(self) -> Tensor:
        """Return the weight [out, in] as floats: some families multiply by it in code of their own."""
        return _scaled(self.numbers, self.scale, self.like.dtype)

    def forward(self, input: Tensor) -> Tensor:
        output = _Product.apply(input, self.numbers, self.scale)
        return output if self.bias is None else output + self.bias  # type: ignore[return-value]

    def _apply(self, fn: Any, recurse: bool = True) -> Int8Linear:
        super()._apply(fn, recurse)
        self.scale = self.scale.float()  # a scale in 16 bits would move all weights of an output
        return self


class _Product(torch.autograd.Function):
    """Computes the product and its gradient, and keeps no weight as floats for the backward pass."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, numbers: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(numbers, scale)
        if input.dtype == torch.float16:
            return linear(input, _scaled(numbers, scale, input.dtype))
        return (linear(input, numbers.to(input.dtype)) * scale).to(input.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (above,), (numbers, scale) = gradients, ctx.saved_tensors
        if above.dtype == torch.float16:
            return above @ _scaled(numbers, scale, above.dtype), None, None
        return (above * scale).to(above.dtype) @ numbers.to(above.dtype), None, None


def _scaled(numbers: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return (numbers * scale[:, None]).to(dtype)


def held_numbers(layer: Any) -> Tensor:
    """Return the tensor that a layer holds its weight in, plain or int8."""
    return getattr(layer, NUMBERS if isinstance(layer, Int8Linear) else "weight")


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight [out, in] to int8, with a scale [out] in float32; an output of zeros has the scale 1."""
    numbers = weight.float()
    scale = numbers.abs().amax(1) / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (numbers / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def sampled(weight: Tensor) -> Tensor:
    """Return the numbers of a weight that a fingerprint reads, in bfloat16: about 1,024, evenly spaced."""
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // 1024)].to(torch.bfloat16).cpu().contiguous()


def originals(model: nn.Module) -> dict[str, Tensor | None]:
    """Return what a fingerprint reads of converted weights, by name; None for their scales."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Int8Linear)}
    weights: dict[str, Tensor | None] = {
        f"{name}.{NUMBERS}": layer.original for name, layer in layers.items()
    }
    return weights | {f"{name}.scale": None for name in layers}


@torch.no_grad()
def convert(model: Any, name: str, head_names: frozenset[str] = frozenset()) -> None:
    """Replace a loaded model's plain linear layers by int8 ones, in place, one after the other.

    Raises SoftPromptError where the model is quantized, or has no such layer.
    """
    if of_model(model) is not None:
        raise SoftPromptError(
            f"weights=int8 cannot be combined with the quantization of '{name}'",
            why="its weights are not plain numbers",
            fix="leave out one of the two",
        )
    kept = {id(layer) for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    layers = {
        path: layer
        for path, layer in model.named_modules()
        if type(layer) is nn.Linear and id(layer) not in kept and f"{path}.weight" not in head_names
    }
    if not layers:
        raise SoftPromptError(
            f"'{name}' has no plain linear layers whose weights could be int8",
            why="its family multiplies in layers of other kinds",
            fix="leave weights=int8 out; quantization_config takes transformers' own ways",
        )
    converted: dict[int, Int8Linear] = {}  # a layer may have two places
    for path, layer in layers.items():
        if id(layer) not in converted:
            converted[id(layer)] = Int8Linear(layer, sampled(layer.weight))
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, converted[id(layer)])
