"""Prefixes enter an unmodified transformers model here: as extra columns of the attention function.

transformers lets anyone register an attention function and the mask function that goes with it
(`AttentionInterface`, `AttentionMaskInterface`). Ours prepends a layer's injected keys and values,
extends the mask by as many columns, and calls the model's own attention (sdpa or eager). Columns
have none of the limits of a seeded KV cache: they work with every cache class, without one, under
gradient checkpointing, with beams, and they stay visible beyond a sliding window.

What is injected reaches the function through a context variable, so two threads never see each
other's. Each attention module of a model is a *site*, numbered on load (`lm.probe`): encoder layers,
decoder layers and cross-attention alike. This file knows nothing of methods, tokens or training.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from ..injection import LayerKV, Layers, Prefix
from . import grouped
from .ragged import as_tensor

SDPA = "softprompt_sdpa"
EAGER = "softprompt_eager"
SITE = "softprompt_site"  # attribute of an attention module: its number
BIAS = "softprompt_bias"  # attribute of an attention module: (the T5 layer that computes its bias,)

Function = TypeVar("Function", bound=Callable)


def not_compiled(function: Function) -> Function:
    """Left alone by torch.compile, which compiles the rest of the model.

    What is injected changes from call to call: it would compile anew for each, until it gives up.
    """
    return torch.compiler.disable(function)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Columns:
    """Keys and values that some or all queries see beside the sequence's own.

    `tail_only`: seen only by queries from `Active.tail_start` on. `positions` [B, P]: where a
    sliding window counts these columns; None where they are visible at any distance.
    """

    layers: Layers
    mask: Tensor  # [B, P] bool
    tail_only: bool = False
    positions: Tensor | None = None
    reach: tuple[Tensor | None, ...] = ()  # by layer: which rows have it, [B] bool; None: all

    def at(self, site: int) -> Tensor:
        """The mask [B, P] of a layer's columns."""
        reach = self.reach[site] if self.reach else None
        return self.mask if reach is None else self.mask & reach[:, None]


@dataclass(slots=True)
class Active:
    """What is injected during one model call (or one `generate`)."""

    columns: Sequence[Columns] = ()
    adapter: Prefix | None = None
    tail_start: Tensor | int = 0  # [B] or one for all: the first query column that sees tail_only columns
    query_positions: Tensor | None = None  # [B, q], needed only where columns have positions
    query_offset: Any = 0  # columns already in the cache; set by the mask function at every model call
    masks: dict[Any, tuple[Tensor | None, Tensor]] = field(default_factory=dict)  # own, and extended
    record: dict[int, LayerKV] | None = None  # each site's own keys and values, as they reach the function
    kept: Kept | None = None  # where each site's own keys and values are kept from call to call
    visits: list[Visit] | None = None  # who called, in order (for the probe)
    capture: bool = False  # stop at the first layer and hand over its keys and values


class Kept(Protocol):
    """Keys and values of the rows so far, one query a row: see `lm.running`."""

    def grown(self, site: int, own: LayerKV, window: int | None) -> tuple[LayerKV, Tensor]:
        """All that a layer's queries see, `own` [B, kv_heads, 1, head_dim] included: its keys and values

        [B, kv_heads, n, head_dim], and which of them each row has: [B, 1, 1, n] bool.
        """
        ...


@dataclass(frozen=True, slots=True)
class Visit:
    """One call of the attention function, as the probe sees it."""

    module: Any
    heads: int
    queries: int
    keys: int
    kv: LayerKV


class Captured(Exception):
    """A layer's keys and values, on their way to whoever asked with `Active.capture`."""

    def __init__(self, layer: LayerKV) -> None:
        super().__init__("captured")
        self.layer = layer


_ACTIVE: ContextVar[Active | None] = ContextVar("softprompt_active", default=None)


@contextlib.contextmanager
def inject(active: Active | None) -> Iterator[Active | None]:
    """Everything computed inside sees `active` (None: the plain model)."""
    token = _ACTIVE.set(active)
    try:
        yield active
    finally:
        _ACTIVE.reset(token)


def checkpoint_contexts() -> tuple[Any, Any]:
    """`context_fn` for torch.utils.checkpoint: the recomputation sees what the forward saw.

    The backward pass may run on another thread, where the context variable is not set.
    """
    return contextlib.nullcontext(), inject(_ACTIVE.get())


def attend_sdpa(module, query, key, value, attention_mask, **kwargs):
    """sdpa attention over [injected columns, own columns]."""
    return _attend(_sdpa, module, query, key, value, attention_mask, **kwargs)


def _sdpa(module, query, parts: Sequence[LayerKV], attention_mask, **kwargs):
    causal_unmasked = attention_mask is None and query.shape[2] > 1  # then the kernel itself masks
    if not causal_unmasked and grouped.suits(query, parts, kwargs):
        return grouped.attend(query, parts, attention_mask, kwargs.get("scaling")), None
    key, value = _joined(parts, query.shape[0])
    if grouped.can_share(query, attention_mask, kwargs):
        return grouped.shared(query, key, value, attention_mask, kwargs.get("scaling")), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def attend_eager(module, query, key, value, attention_mask, **kwargs):
    """The model's own eager attention over [injected columns, own columns]."""
    return _attend(_eager, module, query, key, value, attention_mask, **kwargs)


def _eager(module, query, parts: Sequence[LayerKV], attention_mask, **kwargs):
    base = sys.modules[type(module).__module__].eager_attention_forward
    return base(module, query, *_joined(parts, query.shape[0]), attention_mask, **kwargs)


@not_compiled
def attend_plain(module, query, key, value, attention_mask, *, scaling: float, sliding_window: int | None):
    """softmax(q kᵀ · scaling + mask) v in float32 scores: [B, q, heads, d] and weights (see `lm.shims`)."""
    active = _ACTIVE.get()
    if active is not None:  # such a family makes its masks without us
        active.query_offset = columns_ahead(attention_mask, query.shape[2])
        active.masks.clear()
    return _attend(
        _plain, module, query, key, value, attention_mask, scaling=scaling, sliding_window=sliding_window
    )


def _plain(module, query, parts: Sequence[LayerKV], attention_mask, *, scaling, sliding_window=None):
    key, value = _joined(parts, query.shape[0])
    scores = query.float() @ key.float().transpose(2, 3) * scaling + attention_mask
    weights = scores.softmax(-1).to(value.dtype)
    return (weights @ value).transpose(1, 2), weights


@not_compiled
def _attend(base: Callable, module, query: Tensor, key: Tensor, value: Tensor, attention_mask, **kwargs):
    own = LayerKV(key, value)
    active = _ACTIVE.get()
    if active is None:
        return base(module, query, [own], attention_mask, **kwargs)
    if active.capture:
        raise Captured(own)
    if active.visits is not None:
        active.visits.append(Visit(module, query.shape[1], query.shape[2], key.shape[2], own))
    site = getattr(module, SITE, None)
    if site is None:  # not a layer of the language model
        return base(module, query, [own], attention_mask, **kwargs)
    if active.record is not None:
        active.record[site] = own
    if active.kept is not None:
        own, seen = active.kept.grown(site, own, kwargs.get("sliding_window"))
        attention_mask = _as_mask(seen, attention_mask)
    present = [c for c in active.columns if c.layers[site] is not None]
    parts = [own]
    if present:
        parts = [*(_fit(c.layers[site], key) for c in present), own]
        if kwargs.get("position_bias") is not None:
            real = torch.cat([_rows(c.at(site), query.shape[0]) for c in present], dim=1)
            kwargs["position_bias"] = _extend_bias(module, kwargs["position_bias"], attention_mask, real)
        window = kwargs.get("sliding_window")
        attention_mask = _whole_mask(active, present, site, query, key.shape[2], attention_mask, window)
    output, weights = base(module, query, parts, attention_mask, **kwargs)
    if active.adapter is not None and active.adapter.layers[site] is not None:
        output = output + _gated(active.adapter, site, query, key, kwargs.get("scaling"))
    return output, weights


def _joined(parts: Sequence[LayerKV], rows: int) -> tuple[Tensor, Tensor]:
    """Keys and values of all parts as one tensor each, for functions that take no other: [B, kv_heads, …]."""
    if len(parts) == 1:
        return parts[0].key, parts[0].value
    whole = [part.map(as_tensor) for part in parts]
    keys, values = zip(*((_rows(part.key, rows), _rows(part.value, rows)) for part in whole), strict=True)
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


def _rows(tensor: Tensor, rows: int) -> Tensor:
    """As many rows as the query has: one for all, or each repeated (beams)."""
    if tensor.shape[0] == rows:
        return tensor
    if tensor.shape[0] == 1:
        return tensor.expand(rows, *tensor.shape[1:])
    return tensor.repeat_interleave(rows // tensor.shape[0], dim=0)


def _fit(layer: LayerKV | None, key: Tensor) -> LayerKV:
    """The layer in the sequence's dtype, with as many rows as it has, or one for all."""
    assert layer is not None

    def fit(t: Tensor) -> Tensor:
        if t.shape[0] == 1:  # one for all is a tensor: see `grouped`
            return as_tensor(t).to(key.dtype)
        t = _rows(t, key.shape[0])
        return t if t.dtype == key.dtype else t.to(key.dtype)

    return layer.map(fit)


def _whole_mask(
    active: Active,
    present: Sequence[Columns],
    site: int,
    query: Tensor,
    keys: int,
    mask: Tensor | None,
    window: int | None,
) -> Tensor:
    """The sequence's own mask with the injected columns ahead of it: [B, 1 or heads, q, sum of P + keys].

    Made once for layers alike.
    """
    # an offset may be a tensor (static caches), so a mask is kept for one model call only: see `mask_sdpa`
    own = site if any(c.reach for c in present) else None
    name = (tuple(id(c) for c in present), own, query.shape[0], query.shape[2], keys, window, id(mask))
    if name not in active.masks:
        seen = _visible(active, present, site, query, window)
        # its own mask is kept beside it, so that no other takes its id
        active.masks[name] = mask, _extend(mask, seen, keys)
    return active.masks[name][1]


def _visible(
    active: Active, present: Sequence[Columns], site: int, query: Tensor, window: int | None
) -> Tensor:
    """Which injected columns each query sees: [B, 1, q, sum of P] bool."""
    rows, queries = query.shape[0], query.shape[2]
    parts = []
    for columns in present:
        seen = columns.at(site)[:, None, None, :]
        if columns.tail_only:
            at = torch.arange(queries, device=query.device) + active.query_offset
            start = torch.as_tensor(active.tail_start, device=query.device).reshape(-1, 1)
            seen = seen & (at[None, :] >= start)[:, None, :, None]
        if window and columns.positions is not None and active.query_positions is not None:
            distance = active.query_positions[:, :, None] - columns.positions[:, None, :]
            seen = seen & (distance < window)[:, None]
        parts.append(_rows(seen.expand(-1, 1, queries, -1), rows))
    return torch.cat(parts, dim=-1)


def _extend(mask: Tensor | None, seen: Tensor, keys: int) -> Tensor:
    """A mask over `keys` own columns with the injected ones, seen or not [B, 1, q, P], ahead of it."""
    rows, _, queries, _ = seen.shape
    if mask is None:
        mask = seen.new_ones(rows, 1, queries, keys)
    seen, mask = _as_mask(seen, mask), mask.expand(rows, -1, -1, -1)
    return torch.cat([seen.expand(-1, mask.shape[1], -1, -1), mask], dim=-1)


def _as_mask(seen: Tensor, like: Tensor | None) -> Tensor:
    """What is seen, bool, as a mask of the kind that the model makes: bool, or added to scores."""
    if like is None or like.dtype == torch.bool:
        return seen
    return torch.where(
        seen, torch.zeros((), dtype=like.dtype, device=like.device), torch.finfo(like.dtype).min
    )


def _extend_bias(module, bias: Tensor, mask: Tensor | None, real: Tensor) -> Tensor:
    """T5's relative position bias [1 or B, heads, q, k] with the injected columns ahead of it.

    A row's real columns [B, P] stand at … -2, -1, whatever other rows have between them.
    """
    rows, queries = real.shape[0], bias.shape[2]
    (source,) = getattr(module, BIAS, (None,))
    if source is None:  # cross-attention has no positions
        ahead = bias.new_zeros(rows, bias.shape[1], queries, real.shape[1])
    else:
        at = torch.arange(queries, device=bias.device)
        if source.is_decoder and mask is not None:
            at = at + columns_ahead(mask, queries)
        place = -real.flip(1).long().cumsum(1).flip(1)
        bucket = source._relative_position_bucket(
            place[:, None, :] - at[None, :, None],
            bidirectional=not source.is_decoder,
            num_buckets=source.relative_attention_num_buckets,
            max_distance=source.relative_attention_max_distance,
        )
        ahead = source.relative_attention_bias(bucket).permute(0, 3, 1, 2).to(bias.dtype)
    return torch.cat([ahead, bias.expand(rows, -1, -1, -1)], dim=-1)


def columns_ahead(mask: Tensor, queries: int) -> Tensor:
    """Columns in the cache ahead of the queries, by a causal mask: a query sees itself, and nothing later."""
    shown = mask if mask.dtype == torch.bool else mask == 0
    columns = torch.arange(mask.shape[-1], device=mask.device)
    # the longest row's last query is real, wherever the padding stands
    return (shown[:, 0, -1] * columns).amax() - (queries - 1)


def _gated(adapter: Prefix, site: int, query: Tensor, key: Tensor, scaling: float | None) -> Tensor:
    """tanh(gate) × softmax(q Kᵀ) V over the adapter's columns (LLaMA-Adapter, eq. 6–8): [B, q, heads, d]."""
    layer, mask = _fit(adapter.layers[site], key), _rows(adapter.mask, query.shape[0])
    assert layer.gate is not None
    groups = query.shape[1] // layer.key.shape[1]
    keys, values = (t.repeat_interleave(groups, dim=1) for t in (layer.key, layer.value))
    scores = query @ keys.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = scores.float().masked_fill(~mask[:, None, None, :], torch.finfo(torch.float32).min)
    # a row without an adapter in a mixed batch: all columns masked, its gate is zero, so the term vanishes
    weights = scores.softmax(-1).to(query.dtype)
    return (layer.gate.tanh()[:, :, None, None] * (weights @ values)).transpose(1, 2)


@not_compiled
def mask_sdpa(*args, **kwargs):
    """transformers' sdpa mask, always built while something is injected: a skipped one cannot be extended."""
    _note_offset(kwargs)
    return sdpa_mask(*args, **_always_built(kwargs))


@not_compiled
def mask_eager(*args, **kwargs):
    """transformers' eager mask, always built while something is injected."""
    _note_offset(kwargs)
    return eager_mask(*args, **_always_built(kwargs))


def _note_offset(kwargs: dict) -> None:
    active = _ACTIVE.get()
    if active is not None:
        active.query_offset = kwargs.get("q_offset", 0)
        active.masks.clear()


def _always_built(kwargs: dict) -> dict:
    if _ACTIVE.get() is None:
        return kwargs
    return {**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}


for _name, _attention, _mask in ((SDPA, attend_sdpa, mask_sdpa), (EAGER, attend_eager, mask_eager)):
    AttentionInterface.register(_name, _attention)
    AttentionMaskInterface.register(_name, _mask)
