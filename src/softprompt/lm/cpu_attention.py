"""Scaled dot-product attention as plain products, for CPUs: keys and values in parts that are never joined.

Torch's fused kernel wants one tensor of keys and one of values, with as many heads as the queries. Its
backward pass on CPUs costs a fixed price for every row and head: measured with 17 queries, 45 keys, 32 rows
and 9 heads in bfloat16, 20 ms a layer where this takes 2. Here only the scores of the parts are joined, so

- a cached context, a prefix and the sequence's own keys are not copied;
- query heads that share a key head are one product, so keys are never repeated;
- a part of one row serves all rows in one product: neither a shared prefix nor its gradient is copied.

Numbers are those of transformers' eager attention: scores and weights in the model's precision, softmax
in float32. The backward pass is written out: of all that has the scores' size, autograd keeps the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..injection import LayerKV
from .library_internals import softmax_gradient
from .ragged import Ragged

FEW_QUERIES = 64  # up to here at any length: what is held is smaller than a copy of keys and values would be
FEW_UNTRAINED = 32  # the same where no gradient is wanted: with 64 the fused kernel is faster on two threads
LARGEST_SCORES = 2**22  # numbers in the scores of more queries; the fused kernel never holds them


def suits(query: Tensor, parts: Sequence[LayerKV], options: dict[str, Any]) -> bool:
    """Return whether this is faster on a CPU: for gradients, and for few queries of many rows in parts."""
    if not _is_simple(query, options):
        return False
    rows, heads, queries = query.shape[:3]
    trained = torch.is_grad_enabled() and any(
        t.requires_grad for t in (query, *(t for part in parts for t in (part.key, part.value)))
    )
    if not trained:
        return queries <= FEW_UNTRAINED and len(parts) > 1 and rows > 1
    return (
        queries <= FEW_QUERIES
        or rows * heads * queries * sum(part.key.shape[2] for part in parts) <= LARGEST_SCORES
    )


def can_share(query: Tensor, mask: Tensor | None, options: dict[str, Any]) -> bool:
    """Return whether the fused kernel takes keys for fewer heads; elsewhere they are repeated for it.

    With a mask, transformers does so for one query alone, whose heads it lays side by side: that is faster.
    """
    several = mask is not None and query.shape[2] > 1
    return several and not torch.is_grad_enabled() and _is_simple(query, options)


def shared(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """The fused kernel on keys and values [B, kv_heads, k, …]: [B, q, heads, v_head_dim]."""
    out = scaled_dot_product_attention(query, key, value, mask, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous()


def _is_simple(query: Tensor, options: dict[str, Any]) -> bool:
    plain = options.get("position_bias") is None and options.get("softcap") is None
    return plain and query.device.type == "cpu" and not options.get("dropout")


def attend(query: Tensor, parts: Sequence[LayerKV], mask: Tensor | None, scaling: float | None) -> Tensor:
    """Compute softmax(q [k₁ k₂ …]ᵀ · scaling + mask) [v₁; v₂; …]: [B, q, heads, v_head_dim].

    query [B, heads, q, d]; each part's key and value [B or 1, kv_heads, k, …], or ragged ones in their
    place; mask bool or additive, for [B, heads, q, sum of k].
    """
    if torch.is_autocast_enabled("cpu"):  # in one precision, as the fused kernel would get them
        kind = torch.get_autocast_dtype("cpu")
        parts = [part.map(lambda t: t.to(kind)) for part in parts]
        with torch.autocast("cpu", enabled=False):  # the backward pass runs outside of it
            return attend(query.to(kind), parts, mask, scaling)
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _Attend.apply(query, mask, scale, *(t for part in parts for t in (part.key, part.value)))  # type: ignore[return-value]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, mask: Tensor | None, scale: float, *parts: Tensor | Ragged
    ) -> Tensor:
        keys, values = parts[::2], parts[1::2]
        rows, heads, queries, size = query.shape
        grouped = query.reshape(rows, keys[0].shape[1], -1, size)  # [B, kv_heads, groups · q, d]
        scores = _scores(grouped, keys).view(rows, heads, queries, -1)
        exact = torch.promote_types(scores.dtype, torch.float32)
        scores = scores.to(exact) * scale if mask is None else torch.add(mask, scores, alpha=scale)
        weights = scores.softmax(-1).to(query.dtype).view(*grouped.shape[:3], -1)
        # what is ragged is no tensor, and cannot be saved as one
        ctx.ragged = [part if isinstance(part, Ragged) else None for part in parts]
        ctx.save_for_backward(grouped, weights, *(p for p in parts if isinstance(p, Tensor)))
        ctx.scale, ctx.shape = scale, query.shape
        out = _weighted(weights, keys, values)
        return out.reshape(rows, heads, queries, -1).transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grouped, weights, *saved = ctx.saved_tensors
        tensors = iter(saved)
        parts = [next(tensors) if part is None else part for part in ctx.ragged]
        keys, values = parts[::2], parts[1::2]
        above = gradients[0].transpose(1, 2).reshape(*grouped.shape[:3], -1)
        of_weights = _scores(above, values)
        exact = torch.promote_types(weights.dtype, torch.float32)
        of_scores = softmax_gradient(of_weights.to(exact), weights.to(exact))
        of_scores = of_scores.mul_(ctx.scale).to(weights.dtype)
        gradients_of_parts: list[Tensor | None] = []
        pieces = zip(_split(of_scores, keys), _split(weights, keys), keys, values, strict=True)
        for index, (of_score, weight, key, value) in enumerate(pieces):
            needed = ctx.needs_input_grad[3 + 2 * index :]
            gradients_of_parts.append(_gradient(of_score, grouped, key) if needed[0] else None)
            gradients_of_parts.append(_gradient(weight, above, value) if needed[1] else None)
        of_query = _weighted(of_scores, keys, keys).reshape(ctx.shape) if ctx.needs_input_grad[0] else None
        return of_query, None, None, *gradients_of_parts


def _scores(left: Tensor, parts: Sequence[Tensor | Ragged]) -> Tensor:
    """Multiply left [B, h, n, x] by each part's [B or 1, h, k, x], transposed: [B, h, n, sum of k]."""
    products = [
        part.scores(left) if isinstance(part, Ragged) else _product(left, part.transpose(2, 3))
        for part in parts
    ]
    return torch.cat(products, dim=-1) if len(products) > 1 else products[0]


def _split(scores: Tensor, keys: Sequence[Tensor | Ragged]) -> tuple[Tensor, ...]:
    return scores.split([key.shape[2] for key in keys], dim=-1)


def _weighted(scores: Tensor, keys: Sequence[Tensor | Ragged], vectors: Sequence[Tensor | Ragged]) -> Tensor:
    """Sum over all parts' columns: [B, h, n, sum of k] times each part's [B or 1, h, k, y]."""
    pairs = zip(_split(scores, keys), vectors, strict=True)
    products = (
        v.weighted(weights) if isinstance(v, Ragged) else _product(weights, v) for weights, v in pairs
    )
    return reduce(torch.add, products)


def _product(left: Tensor, part: Tensor) -> Tensor:
    """Multiply left [B, h, n, x] by part [B or 1, h, x, y]: [B, h, n, y]."""
    rows = left.shape[0]
    if part.shape[0] == rows:
        return left @ part
    return (_side_by_side(left) @ part[0]).unflatten(1, (rows, -1)).transpose(0, 1)


def _gradient(left: Tensor, right: Tensor, part: Tensor) -> Tensor:
    """leftᵀ right, for part [B or 1, h, x, y]: the sum over all rows where it serves them all."""
    if part.shape[0] == left.shape[0]:
        return left.transpose(2, 3) @ right
    return (_side_by_side(left).transpose(1, 2) @ _side_by_side(right))[None]


def _side_by_side(rows: Tensor) -> Tensor:
    """Return [B, h, n, x] as [h, B · n, x]."""
    return rows.transpose(0, 1).flatten(1, 2)
