"""New prompts made of tuned ones without training: side by side, averaged, or at another strength.

    concatenate  [A; B]: soft tokens in order; columns of both prefixes, A's keys moved ahead of B's
    average      mean of vectors of the same shapes, keys at positions -P … -1
    scale        soft tokens: (1 − s) nearest token + s v;   prefix: values s V;   gate: tanh g' = s tanh g

Each takes injections of one row, made for one frozen base model, and returns such an injection. The result is
defined by what the model computes; it need not do both tasks, since prefixes that were trained apart were
never trained to be seen together. This file reads and writes no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import SoftPromptError
from ..injection import Injection, LayerKV, Layers, Prefix, SoftTokens
from ..lm.base import LanguageModel

CHUNK = 8192  # vocabulary rows compared at once


def concatenate(parts: Sequence[Injection], lm: LanguageModel, *, keep_positions: bool = False) -> Injection:
    """Join prompts in order; a channel that only some of them have is kept beside the others.

    Equal to a model whose attention sees the union of all columns (and whose sequence holds all soft tokens,
    in order). Keys of a prefix have the positions -P … -1, so earlier ones move by the length of later ones.
    With `keep_positions` they do not move, and all prefixes claim the positions nearest to the input.
    Raises SoftPromptError for two gated adapters (each has its own softmax), and where keys cannot move.
    """
    return _by_channel(parts, partial(_concatenate_channel, lm=lm, keep_positions=keep_positions))


def average(parts: Sequence[Injection], lm: LanguageModel) -> Injection:
    """Average each number over prompts of the same channels and shapes; keys are taken at positions -P … -1.

    The average of one prompt with itself is that prompt, to the bit. Raises SoftPromptError for other shapes.
    """
    if len({_shape(part) for part in parts}) > 1:
        shown = "; ".join(", ".join(f"{name} {size}" for name, size in _shape(part)) for part in parts)
        raise SoftPromptError(
            "prompts of different shapes have no average",
            why=f"places and numbers of vectors: {shown}",
            fix="average prompts of one placement and length, or concatenate them",
        )
    return _by_channel(parts, _average_channel)


def scale(prompt: Injection, strength: float, lm: LanguageModel) -> Injection:
    """Return one prompt at another strength s; 1 is the prompt as trained, to the bit. At 0:

    - gated adapters: the plain model, exactly. The gated term is multiplied by s.
    - prefixes: the values are multiplied by s, the attention weights are not. At 0 the columns add nothing
      but still take attention away: this is *not* the plain model.
    - soft tokens: each moves on the line from the vocabulary token nearest to it (Euclidean) to itself. At 0
      the prompt is the text of these tokens: this is *not* the plain model, since they keep their positions.

    Raises SoftPromptError where a gate, which tanh keeps below 1, cannot be as strong as asked.
    """
    scaled: dict[str, Any] = {}
    for name, part in prompt.channels().items():
        if isinstance(part, SoftTokens):
            start = nearest_embeddings(lm, part.vectors[0])[None].to(part.vectors)
            scaled[name] = SoftTokens(torch.lerp(start, part.vectors, strength), part.mask)
        else:
            layers = tuple(None if layer is None else _scale_layer(layer, strength) for layer in part.layers)
            scaled[name] = Prefix(layers, part.mask)
    return Injection(**scaled)


@torch.no_grad()
def nearest_embeddings(lm: LanguageModel, vectors: Tensor) -> Tensor:
    """Return the embedding [P, H] of the vocabulary token nearest to each of the vectors [P, H]."""
    vectors = vectors.to(lm.device).float()
    parts = torch.arange(lm.spec.vocab_size, device=lm.device).split(CHUNK)
    near = [torch.cdist(vectors, lm.embed(ids).float()).min(dim=-1) for ids in parts]
    distances = torch.stack([best.values for best in near])  # [parts, P]
    ids = torch.stack([ids[best.indices] for ids, best in zip(parts, near, strict=True)])
    return lm.embed(ids.gather(0, distances.argmin(0, keepdim=True))[0]).float()


def _by_channel(
    parts: Sequence[Injection], join: Callable[[str, Sequence[Any]], SoftTokens | Prefix]
) -> Injection:
    names = dict.fromkeys(name for part in parts for name in part.channels())
    joined: dict[str, Any] = {
        name: join(name, [part.channels()[name] for part in parts if name in part.channels()])
        for name in names
    }
    return Injection(**joined)


def _concatenate_channel(
    name: str, parts: Sequence[Any], lm: LanguageModel, keep_positions: bool
) -> SoftTokens | Prefix:
    if len(parts) == 1:
        return parts[0]
    mask = torch.cat([part.mask for part in parts], dim=1)
    if isinstance(parts[0], SoftTokens):
        return SoftTokens(torch.cat([part.vectors for part in parts], dim=1), mask)
    if name == "adapter":
        raise SoftPromptError(
            "two gated adapters cannot be concatenated",
            why="each has its own softmax and gate, and a layer holds one",
            fix="average them, or use prefix-tuning",
        )
    later, moved = 0, []
    for part in reversed(parts):
        moved.append(part.layers if keep_positions or not later else lm.move(part.layers, -later))
        later += part.mask.shape[1]
    return Prefix(_join_layers(moved[::-1]), mask)


def _join_layers(several: Sequence[Layers]) -> Layers:
    joined: list[LayerKV | None] = []
    for layers in zip(*several, strict=True):
        present = [layer for layer in layers if layer is not None]
        if not present:
            joined.append(None)
            continue
        if len(present) < len(layers):
            raise SoftPromptError(
                "these prefixes cannot be concatenated",
                why="one has columns in layers where another has none",
                fix="concatenate prefixes that go to the same layers",
            )
        key, value = (torch.cat(t, dim=2) for t in zip(*((la.key, la.value) for la in present), strict=True))
        joined.append(LayerKV(key, value))
    return tuple(joined)


def _average_channel(name: str, parts: Sequence[Any]) -> SoftTokens | Prefix:
    if isinstance(parts[0], SoftTokens):
        return SoftTokens(_mean([part.vectors for part in parts]), parts[0].mask)
    layers = tuple(
        None if layer[0] is None else _mean_layer(layer)
        for layer in zip(*(part.layers for part in parts), strict=True)
    )
    return Prefix(layers, parts[0].mask)


def _mean_layer(layers: Sequence[LayerKV]) -> LayerKV:
    gates = [layer.gate for layer in layers if layer.gate is not None]
    return LayerKV(
        _mean([layer.key for layer in layers]),
        _mean([layer.value for layer in layers]),
        _mean(gates) if gates else None,
    )


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    # in double precision, so that the mean of equal numbers is that number
    return torch.stack([t.double() for t in tensors]).mean(0).to(tensors[0].dtype)


def _shape(injection: Injection) -> tuple[tuple[str, Any], ...]:
    """Return the channels with their sizes, which are equal for prompts that can be averaged."""

    def size(part: SoftTokens | Prefix) -> Any:
        if isinstance(part, SoftTokens):
            return part.vectors.shape[1]
        return part.mask.shape[1], tuple(i for i, layer in enumerate(part.layers) if layer is not None)

    return tuple((name, size(part)) for name, part in sorted(injection.channels().items()))


def _scale_layer(layer: LayerKV, strength: float) -> LayerKV:
    if layer.gate is None:
        return LayerKV(layer.key, strength * layer.value)
    if strength == 1:
        return layer  # atanh(tanh(g)) is g but for rounding
    wanted = strength * layer.gate.double().tanh()
    if not (wanted.abs() < 1).all():
        most = 1 / layer.gate.double().tanh().abs().max().item()
        raise SoftPromptError(
            f"these gates cannot be {strength:g} times as strong",
            why=f"the largest would pass tanh's limit of 1 at {most:.3g}",
            fix=f"use a strength below {most:.3g}",
        )
    return LayerKV(layer.key, layer.value, wanted.atanh().to(layer.gate.dtype))
