"""What a method may give a frozen model: soft tokens, per-layer keys and values, or both.

The whole vocabulary between methods and models is here. A method returns an `Injection`; `lm.causal`
turns it into model input. Neither knows the other. This file knows nothing of models or methods.

Shapes: B rows, P or Q injected positions, H hidden size. Rows of one batch may carry different
lengths: every tensor has a boolean mask [B, P] beside it, True where a vector is real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .errors import SoftPromptError


@dataclass(frozen=True, slots=True)
class LayerKV:
    """Keys and values of one layer, post-rotary, as a KV cache holds them.

    `gate`, where given, makes this a LLaMA-Adapter layer: a softmax of its own over these columns,
    scaled by tanh(gate), is added to the layer's attention output.
    """

    key: Tensor  # [B or 1, kv_heads, P, head_dim]
    value: Tensor  # [B or 1, kv_heads, P, v_head_dim]
    gate: Tensor | None = None  # [B or 1, heads]

    def map(self, change: Callable[[Tensor], Tensor]) -> LayerKV:
        """The same layer with `change` applied to each of its tensors."""
        return LayerKV(change(self.key), change(self.value), None if self.gate is None else change(self.gate))


Layers = tuple[LayerKV | None, ...]  # one entry a layer; None where nothing is injected


@dataclass(frozen=True, slots=True)
class SoftTokens:
    """Vectors that stand in the input sequence like token embeddings."""

    vectors: Tensor  # [B, P, H]
    mask: Tensor  # [B, P] bool


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of every layer.

    On rotary models keys stand at positions -P … -1: ahead of the first real token for `kv_before`,
    ahead of the last input token for `kv_after` (which moves them there, row by row).
    """

    layers: Layers
    mask: Tensor  # [B, P] bool
    # which rows reach a layer, [B] bool each; None (or none at all): every row reaches it
    reach: tuple[Tensor | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Injection:
    """All that a method may give the model. Everything absent means the plain model."""

    before: SoftTokens | None = None  # ahead of the input
    after: SoftTokens | None = None  # between input and target (encoder-decoder: at the input's end)
    decoder: SoftTokens | None = None  # ahead of the decoder's first token (encoder-decoder models alone)
    kv_before: Prefix | None = None  # seen by the input and the target
    kv_after: Prefix | None = None  # seen from the last input token on (the infix of Li & Liang)
    adapter: Prefix | None = None  # gated, seen by all (LLaMA-Adapter)

    def channels(self) -> dict[str, SoftTokens | Prefix]:
        """The parts that are present, by name."""
        return {f.name: part for f in fields(self) if (part := getattr(self, f.name)) is not None}

    def repeat_rows(self, times: int) -> Injection:
        """Each row `times` times in place ([a, b] becomes [a, a, b, b]), as beams and label scoring need."""
        return self if times == 1 else self.map_rows(lambda t: t.repeat_interleave(times, dim=0))

    def select(self, rows: Tensor) -> Injection:
        """The rows with the given indices [N]."""
        return self.map_rows(lambda t: t.index_select(0, rows.to(t.device)))

    def fit(self, rows: int) -> Injection:
        """Made for one row, it serves `rows` of them; keys and values broadcast by themselves."""
        return Injection(**{name: _fit(part, rows) for name, part in self.channels().items()})  # type: ignore[arg-type]

    def map_rows(self, change: Callable[[Tensor], Tensor]) -> Injection:
        """`change` applied to every tensor that has a row axis."""
        return replace(self, **{name: _map_part(part, change) for name, part in self.channels().items()})

    @staticmethod
    def cat(parts: Sequence[Injection], sizes: Sequence[int] | None = None) -> Injection:
        """Rows of several injections, of any methods and lengths, as one batch.

        Where a row lacks a channel that another row has, its mask is False there. `sizes` are the numbers of
        rows, which an injection without channels does not know.
        """
        if len(parts) == 1:
            return parts[0]
        sizes = sizes or [injection_rows(part) for part in parts]
        merged = {}
        for name in {name for part in parts for name in part.channels()}:
            merged[name] = _cat_channel([getattr(part, name) for part in parts], sizes)
        return Injection(**merged)


def injection_rows(injection: Injection) -> int:
    """Number of rows B of an injection; an empty one has one row by convention."""
    for part in injection.channels().values():
        return part.mask.shape[0]
    return 1


def _fit(part: SoftTokens | Prefix, rows: int) -> SoftTokens | Prefix:
    if part.mask.shape[0] == rows:
        return part
    if part.mask.shape[0] != 1:
        raise SoftPromptError(
            f"an injection of {part.mask.shape[0]} rows does not fit a batch of {rows}",
            why="each row needs its own, or one serves all",
            fix="call the method with one prompt id for each row of the batch",
        )
    mask = part.mask.expand(rows, -1)
    if isinstance(part, SoftTokens):
        return SoftTokens(part.vectors.expand(rows, -1, -1), mask)
    return Prefix(part.layers, mask, tuple(None if r is None else r.expand(rows) for r in part.reach))


def _map_part(part: SoftTokens | Prefix, change: Callable[[Tensor], Tensor]) -> SoftTokens | Prefix:
    if isinstance(part, SoftTokens):
        return SoftTokens(change(part.vectors), change(part.mask))
    rows = part.mask.shape[0]
    layers = tuple(None if layer is None else _expand(layer, rows).map(change) for layer in part.layers)
    reach = tuple(None if rows is None else change(rows) for rows in part.reach)
    return Prefix(layers, change(part.mask), reach)


def _expand(layer: LayerKV, rows: int) -> LayerKV:
    return layer.map(lambda t: t.expand(rows, *t.shape[1:]))


def _cat_channel(parts: Sequence, sizes: Sequence[int]):
    like = next(part for part in parts if part is not None)
    length = max(part.mask.shape[1] for part in parts if part is not None)
    masks = [_pad_mask(part, n, length, like.mask.device) for part, n in zip(parts, sizes, strict=True)]
    mask = torch.cat(masks)
    if isinstance(like, SoftTokens):
        shape = like.vectors.shape[2:]
        rows = [
            like.vectors.new_zeros(n, length, *shape)
            if part is None
            else _pad_length(part.vectors, length, dim=1)
            for part, n in zip(parts, sizes, strict=True)
        ]
        return SoftTokens(torch.cat(rows), mask)
    layers = tuple(
        _cat_layer([None if part is None else part.layers[i] for part in parts], sizes, length)
        for i in range(len(like.layers))
    )
    reach = tuple(_cat_reach(parts, sizes, i, mask.device) for i in range(len(like.layers)))
    return Prefix(layers, mask, reach if any(rows is not None for rows in reach) else ())


def _cat_reach(parts: Sequence, sizes: Sequence[int], index: int, device: torch.device) -> Tensor | None:
    """Which rows reach a layer; None where all do that have a prefix at all."""
    rows = []
    for part, n in zip(parts, sizes, strict=True):
        own = part.reach[index] if part is not None and part.reach else None
        there = part is None or part.layers[index] is not None  # of no prefix, the mask says so already
        rows.append(torch.full((n,), there, device=device) if own is None else own)
    reach = torch.cat(rows)
    return None if bool(reach.all()) else reach


def _cat_layer(layers: Sequence[LayerKV | None], sizes: Sequence[int], length: int) -> LayerKV | None:
    like = next((layer for layer in layers if layer is not None), None)
    if like is None:
        return None

    def rows(get: Callable[[LayerKV], Tensor], pad: bool) -> Tensor:
        out = []
        for layer, n in zip(layers, sizes, strict=True):
            shape = get(like if layer is None else layer).shape[1:]
            tensor = get(like).new_zeros(n, *shape) if layer is None else get(layer).expand(n, *shape)
            out.append(_pad_length(tensor, length, dim=2) if pad else tensor)
        return torch.cat(out)

    gate = None
    if like.gate is not None:
        gate = rows(lambda layer: layer.gate, pad=False)  # type: ignore[arg-type, return-value]
    return LayerKV(rows(lambda layer: layer.key, True), rows(lambda layer: layer.value, True), gate)


def _pad_mask(part: SoftTokens | Prefix | None, rows: int, length: int, device: torch.device) -> Tensor:
    if part is None:
        return torch.zeros(rows, length, dtype=torch.bool, device=device)
    return _pad_length(part.mask, length, dim=1)


def _pad_length(tensor: Tensor, length: int, dim: int) -> Tensor:
    missing = length - tensor.shape[dim]
    if missing == 0:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    # on the left, so that the vectors nearest the input keep their distance to it
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim)
