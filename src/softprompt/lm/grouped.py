"""Scaled dot-product attention as three products, for training on a CPU.

The same function as torch's fused kernel, whose backward pass on CPUs costs a fixed price for every
row and head: measured with 17 queries, 45 keys, 32 rows and 9 heads in bfloat16, 20 ms a layer where
this takes 2. Query heads that share a key head are one product, so keys are never repeated. Numbers
are those of transformers' eager attention: scores in the model's precision, softmax in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LARGEST_SCORES = 2**26  # numbers in the score matrix; beyond it the fused kernel, which never holds one


def suits(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> bool:
    """Whether gradients are wanted, on a CPU, at a size where the score matrix is small."""
    if query.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    if (
        options.get("dropout")
        or options.get("position_bias") is not None
        or options.get("softcap") is not None
    ):
        return False
    trained = query.requires_grad or key.requires_grad or value.requires_grad
    return trained and query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2] <= LARGEST_SCORES


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """softmax(q kᵀ · scaling + mask) v: [B, q, heads, v_head_dim], as transformers' functions give it.

    query [B, heads, q, d]; key, value [B, kv_heads, k, …]; mask bool or additive, for [B, heads, q, k].
    """
    rows, heads, queries, size = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    grouped = query.reshape(rows, kv_heads, -1, size)  # [B, kv_heads, groups · q, d]
    scores = (grouped @ key.transpose(2, 3)).view(rows, heads, queries, keys).float()
    scores = scores * (size**-0.5 if scaling is None else scaling)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1).to(value.dtype).view(rows, kv_heads, -1, keys)
    return (weights @ value).view(rows, heads, queries, -1).transpose(1, 2).contiguous()
