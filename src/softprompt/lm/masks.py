"""Masks say which columns each query sees: the sequence's own, with the injected columns ahead of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .injected import Active, Columns
from .library_internals import position_bucket
from .ragged import rows_of
from .visibility import RULE, Rule


def whole_mask(
    active: Active,
    present: Sequence[Columns],
    site: int,
    query: Tensor,
    keys: int,
    mask: Tensor | None,
    window: int | None,
) -> Tensor:
    """Return the sequence's mask with the injected columns ahead: [B, 1 or heads, q, sum of P + keys].

    It is made once for all layers that have the same columns.
    """
    # an offset may be a tensor (static caches), so a mask is kept for one model call only: see `mask_sdpa`
    own_site = site if any(c.reach for c in present) else None
    name = (tuple(id(c) for c in present), own_site, query.shape[0], query.shape[2], keys, window, id(mask))
    if name not in active.masks:
        offset = active.offsets.get((query.shape[2], keys), active.query_offset)
        seen = _visible(active, present, site, query, offset, window, getattr(mask, RULE, None))
        # its own mask is kept beside it, so that no other takes its id
        active.masks[name] = mask, _extend(mask, seen, keys)
    return active.masks[name][1]


def _visible(
    active: Active,
    present: Sequence[Columns],
    site: int,
    query: Tensor,
    offset: Any,
    window: int | None,
    rule: Rule | None,
) -> Tensor:
    """Return which injected columns each query sees: [B, 1, q, sum of P] bool."""
    rows, queries = query.shape[0], query.shape[2]
    parts = []
    for columns in present:
        seen = columns.at(site)[:, None, None, :]
        if columns.tail_only:
            seen = seen & tail(active, queries, offset, query.device)[:, None, :, None]
        if columns.positions is None or active.query_positions is None:
            pass  # seen at any distance
        elif rule is not None:
            seen = seen & rule.seen(active.query_positions, columns.positions)
        elif window:
            distance = active.query_positions[:, :, None] - columns.positions[:, None, :]
            seen = seen & (distance < window)[:, None]
        parts.append(rows_of(seen.expand(-1, 1, queries, -1), rows))
    return torch.cat(parts, dim=-1)


def tail(active: Active, queries: int, offset: Any, device: torch.device) -> Tensor:
    """Return which queries of a call see the columns that are for the tail alone: [B or 1, q] bool."""
    at = torch.arange(queries, device=device) + offset
    start = torch.as_tensor(active.tail_start, device=device).reshape(-1, 1)
    return at[None, :] >= start


def _extend(mask: Tensor | None, seen: Tensor, keys: int) -> Tensor:
    """Extend a mask over `keys` columns by the injected ones, seen or not [B, 1, q, P], ahead of it."""
    rows, _, queries, _ = seen.shape
    if mask is None:
        mask = seen.new_ones(rows, 1, queries, keys)
    seen, mask = as_mask(seen, mask), mask.expand(rows, -1, queries, -1)  # it may be one for all queries
    return torch.cat([seen.expand(-1, mask.shape[1], -1, -1), mask], dim=-1)


def as_mask(seen: Tensor, like: Tensor | None) -> Tensor:
    """Return a bool mask as the kind of mask that the model makes: bool, or added to scores."""
    if like is None or like.dtype == torch.bool:
        return seen
    return torch.where(
        seen, torch.zeros((), dtype=like.dtype, device=like.device), torch.finfo(like.dtype).min
    )


def chosen_only(mask: Tensor | None, indices: Tensor, keys: int) -> Tensor:
    """Mask the keys that sparse attention did not choose: `indices` [B, q, chosen]."""
    chosen = indices.new_zeros((*indices.shape[:2], keys), dtype=torch.bool)
    chosen = chosen.scatter(-1, indices.long(), True)[:, None]
    if mask is None:
        return chosen
    if mask.dtype == torch.bool:
        return mask & chosen
    return mask.masked_fill(~chosen, torch.finfo(mask.dtype).min)


def extend_bias(source: Any, bias: Tensor, mask: Tensor | None, real: Tensor) -> Tensor:
    """Extend T5's relative position bias [1 or B, heads, q, k] by the injected columns ahead of it.

    `source` is the layer that computes the bias. A row's real columns [B, P] are at the positions … -2, -1.
    """
    rows, queries = real.shape[0], bias.shape[2]
    if source is None:  # cross-attention has no positions
        ahead = bias.new_zeros(rows, bias.shape[1], queries, real.shape[1])
    else:
        at = torch.arange(queries, device=bias.device)
        if source.is_decoder and mask is not None:
            at = at + columns_ahead(mask, queries)
        place = -real.flip(1).long().cumsum(1).flip(1)
        bucket = position_bucket(source, place[:, None, :] - at[None, :, None])
        ahead = source.relative_attention_bias(bucket).permute(0, 3, 1, 2).to(bias.dtype)
    return torch.cat([ahead, bias.expand(rows, -1, -1, -1)], dim=-1)


def columns_ahead(mask: Tensor, queries: int) -> Tensor:
    """Count the cached columns ahead of the queries by a causal mask: a query sees itself, nothing later."""
    shown = mask if mask.dtype == torch.bool else mask == 0
    columns = torch.arange(mask.shape[-1], device=mask.device)
    # the longest row's last query is real, wherever the padding is
    return (shown[:, 0, -1] * columns).amax() - (queries - 1)
