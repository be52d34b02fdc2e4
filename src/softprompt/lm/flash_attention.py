"""Attention by torch's FlashAttention-2 kernels over sets of columns that are never joined in memory.

The kernels take no mask, and one of them is enough for each set: prefix columns are seen by all queries of a
row, a call's own columns causally. Each gives its softmax's normaliser beside its output, the log-sum-exp of
the scores, and with L = log Σ exp(Lᵢ) the whole is Σ exp(Lᵢ − L) · outᵢ (Dao 2023, "FlashAttention-2",
section 2.3.1). The backward pass calls each set's kernel with the *joined* output and log-sum-exp: it
computes its weights as exp(score − L), so they are those of the one softmax over all columns, and
gradients are exact. Padding is left out of the packed rows. A prefix that all rows share is one sequence with
all their queries, so neither it nor its gradient is repeated.

On a GPU a kernel takes all rows at once. On a CPU, where it takes one row, rows have turns: for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..injection import LayerKV
from .flash_layout import Block, Layout
from .library_internals import packed_flash, packed_flash_gradient, row_flash, row_flash_gradient
from .ragged import as_tensor, rows_of

SIXTEEN_BITS = (torch.bfloat16, torch.float16)
LARGEST_HEAD = 256
#: Options of attention that the kernels do not know.
UNKNOWN = ("position_bias", "softcap", "s_aux", "sliding_window")


def suits(query: Tensor, parts: Sequence[LayerKV], options: dict[str, Any]) -> bool:
    """Return whether the kernels take this call."""
    kinds = {(t.dtype, t.device, t.shape[-1]) for part in parts for t in (part.key, part.value)}
    if kinds != {(query.dtype, query.device, query.shape[-1])} or options.get("dropout"):
        return False
    if any(options.get(name) is not None for name in UNKNOWN):
        return False
    kind, size = query.device.type, query.shape[-1]
    if kind not in ("cpu", "cuda") or torch.is_autocast_enabled(kind):
        return False
    fits = query.dtype in SIXTEEN_BITS and size <= LARGEST_HEAD and size % 8 == 0
    return fits or takes_rows(query.device)


def takes_rows(device: torch.device) -> bool:
    """Return whether the kernel of a device takes one row at a time; else it takes packed sequences."""
    return device.type == "cpu"


def attend(query: Tensor, parts: Sequence[LayerKV], layout: Layout, scaling: float | None) -> Tensor:
    """Compute softmax(q [k₁ k₂ …]ᵀ · scaling) [v₁; v₂; …] over what the layout shows: [B, q, heads, d].

    query [B, heads, q, d]; each part's key and value [B or 1, kv_heads, k, d], the call's own last. The
    output of a query of padding is zero.
    """
    rows, heads, count, size = query.shape
    # keys that were moved to each row's positions have their own rows, while their values may have one
    own_rows = [max(part.key.shape[0], part.value.shape[0]) for part in parts]
    blocks = layout.blocks([n < rows for n in own_rows])
    vectors: list[Tensor] = []
    for part, n, block in zip(parts, own_rows, blocks, strict=True):
        if block is not None:
            vectors += [_packed(rows_of(as_tensor(t), n), block.keys) for t in (part.key, part.value)]
    scale = size**-0.5 if scaling is None else scaling
    seen = [block for block in blocks if block is not None]
    out: Tensor = _Joined.apply(_packed(query, layout.queries), seen, scale, *vectors)  # type: ignore[assignment]
    if layout.queries is not None:
        out = out.new_zeros(rows * count, heads, size).index_copy(0, layout.queries, out)
    return out.view(rows, count, heads, size)


def _packed(vectors: Tensor, chosen: Tensor | None) -> Tensor:
    """Return [B, heads, n, d] as [B · n, heads, d], or the chosen ones of these."""
    flat = vectors.transpose(1, 2).flatten(0, 1)
    return flat.contiguous() if chosen is None else flat.index_select(0, chosen)


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, blocks: list[Block], scale: float, *parts: Tensor) -> Tensor:
        results = []
        for block, key, value in zip(blocks, parts[::2], parts[1::2], strict=True):
            results.append(_forward(_of(query, block), key, value, block, scale))
        if len(blocks) == 1 and blocks[0].queries is None:
            out, lse = results[0]
        else:
            out, lse = _join(query, blocks, results)
        ctx.save_for_backward(query, out, lse, *parts)
        ctx.blocks, ctx.scale = blocks, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, out, lse, *parts = ctx.saved_tensors
        above = gradients[0].contiguous()
        exact = torch.promote_types(query.dtype, torch.float32)
        of_query = torch.zeros(query.shape, dtype=exact, device=query.device)
        of_parts: list[Tensor] = []
        for block, key, value in zip(ctx.blocks, parts[::2], parts[1::2], strict=True):
            given = _of(above, block), _of(query, block), _of(out, block)
            of_block = lse if block.queries is None else lse.index_select(1, block.queries)
            first, *rest = _backward(*given, of_block, key, value, block, ctx.scale)
            if block.queries is None:
                of_query += first
            else:
                of_query.index_add_(0, block.queries, first.to(exact))
            of_parts += rest
        return of_query.to(query.dtype), None, None, *of_parts


def _of(tensor: Tensor, block: Block) -> Tensor:
    """Take a block's queries of a tensor [queries, …]."""
    return tensor if block.queries is None else tensor.index_select(0, block.queries)


def _join(
    query: Tensor, blocks: Sequence[Block], results: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Join the blocks' outputs [n, heads, d] by their log-sum-exps [heads, n]; a query is in one at least."""
    exact = torch.promote_types(query.dtype, torch.float32)
    shape = (len(blocks), query.shape[1], query.shape[0])
    each = torch.full(shape, -torch.inf, dtype=exact, device=query.device)
    for i, (block, (_, lse)) in enumerate(zip(blocks, results, strict=True)):
        if block.queries is None:
            each[i] = lse
        else:
            each[i].index_copy_(1, block.queries, lse.to(exact))
    whole = each.logsumexp(0)
    weights = (each - whole).exp().transpose(1, 2)[..., None]  # [blocks, queries, heads, 1]
    out = torch.zeros(query.shape, dtype=exact, device=query.device)
    for block, weight, (part, _) in zip(blocks, weights, results, strict=True):
        if block.queries is None:
            out += weight * part
        else:
            out.index_add_(0, block.queries, weight.index_select(0, block.queries) * part)
    return out.to(query.dtype), whole.to(results[0][1].dtype)


def _forward(query: Tensor, key: Tensor, value: Tensor, block: Block, scale: float) -> tuple[Tensor, Tensor]:
    """Return a block's output [n, heads, d] and log-sum-exp [heads, n]. Each of its queries sees a key."""
    if not takes_rows(query.device):
        return packed_flash(query, key, value, block.starts, block.longest, block.causal, scale)
    out = torch.empty_like(query)
    lse = torch.empty(query.shape[1::-1], dtype=torch.promote_types(query.dtype, torch.float32))
    for q, k in _sequences(block):
        mask = _bottom_right(q, k, query.dtype) if block.causal else None
        part, normaliser = row_flash(_row(query[q]), _row(key[k]), _row(value[k]), mask, scale)
        out[q], lse[:, q] = part[0].transpose(0, 1), normaliser[0]
    return out, lse


def _backward(
    above: Tensor,
    query: Tensor,
    out: Tensor,
    lse: Tensor,
    key: Tensor,
    value: Tensor,
    block: Block,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a block's queries, keys and values, from the joined output and log-sum-exp."""
    if not takes_rows(query.device):
        starts, longest = block.starts, block.longest
        return packed_flash_gradient(above, query, key, value, out, lse, starts, longest, block.causal, scale)
    of_query, of_key, of_value = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    for q, k in _sequences(block):
        mask = _bottom_right(q, k, query.dtype) if block.causal else None
        vectors = _row(query[q]), _row(key[k]), _row(value[k]), _row(out[q])
        parts = row_flash_gradient(_row(above[q]), *vectors, lse[None, :, q], mask, scale)
        for whole, at, part in zip((of_query, of_key, of_value), (q, k, k), parts, strict=True):
            whole[at] = part[0].transpose(0, 1)
    return of_query, of_key, of_value


def _sequences(block: Block) -> list[tuple[slice, slice]]:
    """Return where the queries and the keys of each sequence are, of those that have queries."""
    (q, k) = (starts.tolist() for starts in block.starts)
    pairs = [(slice(q[i], q[i + 1]), slice(k[i], k[i + 1])) for i in range(len(q) - 1)]
    return [(a, b) for a, b in pairs if a.start < a.stop]


def _row(vectors: Tensor) -> Tensor:
    """Return packed vectors [n, heads, d] of one row as [1, heads, n, d]."""
    return vectors.transpose(0, 1)[None]


def _bottom_right(queries: slice, keys: slice, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores of a causal sequence whose last query sees all keys: [q, k]."""
    q, k = queries.stop - queries.start, keys.stop - keys.start
    return torch.full((q, k), -torch.inf, dtype=dtype).triu(k - q + 1)
