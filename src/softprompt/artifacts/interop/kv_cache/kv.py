"""Soft tokens and prefixes are compiled into one KV prefix, as a cache has it after reading them.

    [prefix of K | soft tokens of P | input]     k = K + P, the input starts at position k

In training, a prefix's keys are at -K … -1, soft tokens at 0 … P-1, and the input follows from P. Rotated
keys are all moved by K, which changes no difference of positions, and so no attention. Soft tokens alone
(K = 0) are not moved, which is exact for any kind of position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ....data.collate import batch_of_ids
from ....errors import SoftPromptError
from ....injection import Injection, Layers
from ....lm.base import LanguageModel
from .checks import check_injection, length


@dataclass(frozen=True, slots=True)
class CompiledKV:
    """Keys and values of every layer, stored post-rotary for positions 0 … k-1."""

    keys: tuple[Tensor, ...]  # one a layer: [k, kv_heads, head_dim]
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """The number k of vectors, which is the position of the first real token."""
        return self.keys[0].shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """Return tensors by their names in a file: k.0, v.0, k.1, …"""
        pairs = enumerate(zip(self.keys, self.values, strict=True))
        return {f"{kind}.{i}": tensor for i, pair in pairs for kind, tensor in zip("kv", pair, strict=True)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> CompiledKV:
        """Invert `tensors`. Raises KeyError where a layer is missing."""
        layers = range(len(tensors) // 2)
        return cls(tuple(tensors[f"k.{i}"] for i in layers), tuple(tensors[f"v.{i}"] for i in layers))


@torch.no_grad()
def compile_injection(lm: LanguageModel, injection: Injection) -> CompiledKV:
    """Compile an injection of one row. Raises SoftPromptError where it has no exact KV prefix."""
    check_injection(injection, lm)
    parts = []
    ahead = 0
    if injection.kv_before is not None:
        ahead = length(injection.kv_before.layers)
        parts.append(injection.kv_before.layers)
    if injection.before is not None:  # all but the last token is recorded, so one token of input adds nothing
        one_token = batch_of_ids([[0]], device=lm.device)
        parts.append(lm.prefill(one_token, injection).layers)
    moved = [lm.move(layers, ahead) if ahead else layers for layers in parts]
    keys, values = (_joined(moved, part, lm.dtype) for part in ("key", "value"))
    if not all(tensor.isfinite().all() for tensor in (*keys, *values)):
        raise not_finite()
    return CompiledKV(keys, values)


def not_finite() -> SoftPromptError:
    """Return the error for a prompt that no engine may load."""
    return SoftPromptError(
        "the prompt has numbers that are not finite",
        why="one of them would spoil every answer of an engine's batch",
        fix="train it again with a smaller learning rate",
    )


def _joined(parts: list[Layers], part: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Concatenate layers of [1, kv_heads, P, head_dim] to [k, kv_heads, head_dim] each."""
    columns = ([getattr(layer, part)[0].to(dtype) for layer in same] for same in zip(*parts, strict=True))
    return tuple(torch.cat(column, dim=1).transpose(0, 1).contiguous() for column in columns)
