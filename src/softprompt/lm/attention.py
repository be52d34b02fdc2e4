"""Prefixes are put into an unmodified transformers model as extra columns of the attention function.

transformers lets anyone register an attention function and the mask function that belongs to it
(`AttentionInterface`, `AttentionMaskInterface`). Ours prepends a layer's injected keys and values,
extends the mask by as many columns, and calls the model's own attention (sdpa or eager). Columns
have none of the limits of a seeded KV cache: they work with every cache class, without one, under
gradient checkpointing, with beams, and they stay visible beyond a sliding window.

`lm.injected` holds what is injected. This file knows nothing of methods, tokens or training.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from ..injection import LayerKV, Prefix
from . import cpu_attention, flash_attention
from .flash_layout import is_layout, layout_of, real_columns, whole_layout, without_layout
from .injected import Active, Site, Visit, current
from .masks import as_mask, chosen_only, columns_ahead, extend_bias, whole_mask
from .ragged import as_tensor, rows_of
from .visibility import RULE, rule_of

SDPA = "softprompt_sdpa"
EAGER = "softprompt_eager"
#: Of torch's flash kernels. A name with "flash" in it makes transformers look for the package flash-attn.
PACKED = "softprompt_packed"

Function = TypeVar("Function", bound=Callable)


def not_compiled(function: Function) -> Function:
    """Exclude a function from torch.compile, which compiles the rest of the model.

    What is injected changes from call to call: torch would compile again for each, until it gives up.
    """
    return torch.compiler.disable(function)  # type: ignore[return-value]


def attend_sdpa(module, query, key, value, attention_mask, **kwargs):
    """sdpa attention over [injected columns, own columns]."""
    return _attend(_sdpa, module, query, key, value, attention_mask, **kwargs)


def _sdpa(module, query, parts: Sequence[LayerKV], attention_mask, **kwargs):
    causal_unmasked = attention_mask is None and query.shape[2] > 1  # then the kernel itself masks
    if not causal_unmasked and cpu_attention.suits(query, parts, kwargs):
        return cpu_attention.attend(query, parts, attention_mask, kwargs.get("scaling")), None
    key, value = _joined(parts, query.shape[0])
    if cpu_attention.can_share(query, attention_mask, kwargs):
        return cpu_attention.shared(query, key, value, attention_mask, kwargs.get("scaling")), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def attend_eager(module, query, key, value, attention_mask, **kwargs):
    """The model's own eager attention over [injected columns, own columns]."""
    return _attend(_eager, module, query, key, value, attention_mask, **kwargs)


def _eager(module, query, parts: Sequence[LayerKV], attention_mask, **kwargs):
    base = sys.modules[type(module).__module__].eager_attention_forward
    return base(module, query, *_joined(parts, query.shape[0]), attention_mask, **kwargs)


def attend_flash(module, query, key, value, attention_mask, **kwargs):
    """Flash attention over [injected columns, own columns]; sdpa for calls that its kernels do not take."""
    return _attend(_flash, module, query, key, value, attention_mask, **kwargs)


def _flash(module, query, parts: Sequence[LayerKV], attention_mask, **kwargs):
    if not is_layout(attention_mask):
        return _sdpa(module, query, parts, attention_mask, **kwargs)
    layout = layout_of(attention_mask, query.shape[2])
    if not flash_attention.suits(query, parts, kwargs):
        return _sdpa(module, query, parts, layout.dense(), **kwargs)
    if (active := current()) is not None:
        active.flash_calls += 1
    return flash_attention.attend(query, parts, layout, kwargs.get("scaling")), None


@not_compiled
def attend_plain(module, query, key, value, attention_mask, *, scaling: float, sliding_window: int | None):
    """softmax(q kᵀ · scaling + mask) v in float32 scores: [B, q, heads, d] and weights (see `lm.patches`)."""
    active = current()
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
    active = current()
    if (indices := kwargs.pop("indices", None)) is not None:
        # sparse attention: transformers leaves it to functions that it does not know to hide the other keys
        attention_mask = without_layout(attention_mask, query.shape[2])
        attention_mask = chosen_only(attention_mask, indices, key.shape[2])
    if active is None:
        return base(module, query, [LayerKV(key, value)], attention_mask, **kwargs)
    site, recorded = active.sites.get(module), LayerKV(key, value)
    if active.visits is not None:
        active.visits.append(Visit(module, query.shape[1], query.shape[2], key.shape[2], recorded))
    if site is None:  # not a layer of the language model
        return base(module, query, [recorded], attention_mask, **kwargs)
    if not active.packs:
        return _attend_under(active, site, base, module, query, recorded, attention_mask, **kwargs)
    outputs = []
    for pack in active.packs:
        mask, recorded = pack.causal(kwargs.get("sliding_window")), LayerKV(pack.rows(key), pack.rows(value))
        out, _ = _attend_under(pack.active, site, base, module, pack.rows(query), recorded, mask, **kwargs)
        outputs.append(out.flatten(0, 1))
    return torch.cat(outputs)[None], None


def _attend_under(
    active: Active,
    layer: Site,
    base: Callable,
    module,
    query: Tensor,
    call: LayerKV,
    attention_mask,
    **kwargs,
):
    """One layer's attention over [injected columns, own columns]; its own keys and values are recorded."""
    key, site = call.key, active.next_call(layer)
    active.reached.add(site)
    if active.record is not None:
        active.record[site] = call
    if active.kept is not None:
        rule = getattr(attention_mask, RULE, None)
        call, seen = active.kept.grown(site, call, kwargs.get("sliding_window"), rule)
        attention_mask = as_mask(seen, attention_mask)
    present = [c for c in active.columns if c.layers[site] is not None]
    fitted = None
    if active.fit is not None:
        attention_mask = without_layout(attention_mask, query.shape[2])
        fitted = active.fit(site, query, call, attention_mask, kwargs)
    parts = [call]
    if present:
        parts = [*(_fit(fitted or c.layers[site], key) for c in present), call]
        if kwargs.get("position_bias") is not None:
            real = torch.cat([rows_of(c.at(site), query.shape[0]) for c in present], dim=1)
            kwargs["position_bias"] = extend_bias(layer.bias, kwargs["position_bias"], attention_mask, real)
    if is_layout(attention_mask):
        attention_mask = whole_layout(active, present, site, query, key.shape[2], attention_mask)
    elif present:
        window = kwargs.get("sliding_window")
        attention_mask = whole_mask(active, present, site, query, key.shape[2], attention_mask, window)
    output, weights = base(module, query, parts, attention_mask, **kwargs)
    if active.adapter is not None and active.adapter.layers[site] is not None:
        output = output + _gated(active.adapter, site, query, key, kwargs.get("scaling"))
    if active.outputs is not None:
        active.outputs[site] = output
    return output, weights


def _joined(parts: Sequence[LayerKV], rows: int) -> tuple[Tensor, Tensor]:
    """Keys and values of all parts as one tensor each, for functions that take no other: [B, kv_heads, …]."""
    if len(parts) == 1:
        return parts[0].key, parts[0].value
    keys = [rows_of(as_tensor(part.key), rows) for part in parts]
    values = [rows_of(as_tensor(part.value), rows) for part in parts]
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


def _fit(layer: LayerKV | None, key: Tensor) -> LayerKV:
    """The layer in the sequence's dtype, with as many rows as it has, or one for all."""
    assert layer is not None

    def fit(t: Tensor) -> Tensor:
        # one for all is a tensor: see `grouped`
        t = as_tensor(t) if t.shape[0] == 1 else rows_of(t, key.shape[0])
        return t if t.dtype == key.dtype else t.to(key.dtype)

    return layer.map(fit)


def _gated(adapter: Prefix, site: int, query: Tensor, key: Tensor, scaling: float | None) -> Tensor:
    """Compute tanh(gate) × softmax(q Kᵀ) V over the adapter's columns (LLaMA-Adapter, eq. 6–8).

    The output is [B, q, heads, d].
    """
    layer, mask = _fit(adapter.layers[site], key), rows_of(adapter.mask, query.shape[0])
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
    """transformers' sdpa mask, always built while something is injected: a skipped one cannot be extended.

    Packed rows make their own.
    """
    active = current()
    if active is not None and active.packs:
        return None
    return _build(sdpa_mask, args, kwargs)


@not_compiled
def mask_flash(*args, **kwargs):
    """The real columns [B, k] where queries see all real ones up to their own; else transformers' sdpa mask.

    Packed rows make their own.
    """
    active = current()
    if active is not None and active.packs:
        return None
    real = None if args else real_columns(kwargs)
    if real is None:
        return _build(sdpa_mask, args, kwargs)
    if active is not None:
        _note_call(active, kwargs)
    return real


@not_compiled
def mask_eager(*args, **kwargs):
    """transformers' eager mask, always built while something is injected."""
    return _build(eager_mask, args, kwargs)


def _build(base: Callable, args: tuple, kwargs: dict):
    active = current()
    if active is None:
        return base(*args, **kwargs)
    _note_call(active, kwargs)
    rule = rule_of(kwargs) if active.has_positions else None
    if rule is not None:
        assert active.query_positions is not None
        ahead = active.query_positions[:, -1] + rule.padding - (kwargs["q_length"] - 1)
        kwargs = {**kwargs, "mask_function": rule.behind(ahead)}
    mask = base(*args, **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})
    if rule is not None:
        setattr(mask, RULE, rule)
    return mask


def _note_call(active: Active, arguments: dict) -> None:
    """Note how many cached columns are ahead of a model call's queries, and forget the last call's masks."""
    active.query_offset = arguments.get("q_offset", 0)
    active.offsets[arguments.get("q_length", 0), arguments.get("kv_length", 0)] = active.query_offset
    active.masks.clear()


for _name, _attention, _mask in (
    (SDPA, attend_sdpa, mask_sdpa),
    (EAGER, attend_eager, mask_eager),
    (PACKED, attend_flash, mask_flash),
):
    AttentionInterface.register(_name, _attention)
    AttentionMaskInterface.register(_name, _mask)
