"""Keys and values that a layer's own projections make of vectors that are not tokens (LLaMA-Adapter).

The layer's attention module is called with the arguments that the model itself gives it for one token
at position 0, where nothing is rotated. Its keys and values are recorded where they reach the attention
function, so fused projections, key norms and biases need no code here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..injection import LayerKV
from .attachment import attach
from .cache_name import NAMES
from .injected import Active, attention_lost, inject


def attention_modules(model: nn.Module) -> dict[int, nn.Module]:
    """The attention modules of a loaded model by site (see `lm.probe`)."""
    return attach(model).attention_modules


def project(model: nn.Module, layer: int, hidden: Float[Tensor, "1 length hidden"]) -> LayerKV:
    """Compute the unrotated keys and values [1, kv_heads, P, head_dim] of `hidden` [1, P, H].

    A layer that attends to another layer's keys has no projections: those of the other are taken.
    """
    attachment = attach(model)
    arguments, sources = _arguments(model)
    layer = sources[layer]
    positional, named = arguments[layer]
    length = hidden.shape[1]

    def stretch(value: Any) -> Any:
        """Repeat what belongs to one token for all of them, a mask [1, 1, 1, 1] for all pairs of them."""
        if isinstance(value, tuple):
            return tuple(stretch(part) for part in value)
        if not isinstance(value, Tensor):
            return value
        if value.dim() == 4 and value.shape[-2:] == (1, 1):
            return value.expand(-1, -1, length, length)
        if value.dim() > 1 and value.shape[1] == 1:
            return value.expand(value.shape[0], length, *value.shape[2:])
        return value

    named = {name: stretch(value) for name, value in named.items()}
    named = {"hidden_states": hidden, **named} if not positional else named
    rest = [stretch(value) for value in positional[1:]]
    record: dict[int, LayerKV] = {}
    with inject(Active(record=record), attachment.sites, part=True):
        attachment.attention_modules[layer](*([hidden, *rest] if positional else []), **named)
    if layer not in record:
        raise attention_lost(f"layer {layer} did not call the attention function that puts vectors in")
    return record[layer]


@torch.no_grad()
def _arguments(model) -> tuple[dict[int, tuple[tuple, dict[str, Any]]], dict[int, int]]:
    """By site, what the model gives its attention module besides hidden states, for a token at position 0.

    And by site, the site that makes its keys: another one where layers share them. Both are the same at
    every call, until the model is moved or cast.
    """
    attachment, place = attach(model), (model.device, model.dtype)
    computed_at, arguments, sources = attachment.measured.get("arguments", (None, {}, {}))
    if computed_at != place:
        arguments = {}

        def keep(site: int, args: tuple, named: dict[str, Any]) -> None:
            arguments[site] = args, {k: v for k, v in named.items() if k not in ("hidden_states", *NAMES)}

        # they must serve any later call: one with gradient too, in the model's own precision
        plain = torch.autocast(model.device.type, enabled=False)
        record: dict[int, LayerKV] = {}  # so a mask is made
        recording = inject(Active(record=record), attachment.sites)
        with torch.inference_mode(False), torch.no_grad(), plain, recording:
            _run_hooked(model, torch.zeros(1, 1, dtype=torch.long, device=model.device), keep)
        keys = {site: layer.key for site, layer in sorted(record.items())}
        sources = {
            site: next(s for s, key in keys.items() if key is own_key) for site, own_key in keys.items()
        }
        attachment.measured["arguments"] = place, arguments, sources
    return arguments, sources


def attention_inputs(model: nn.Module, ids: Int[Tensor, "1 length"]) -> list[Float[Tensor, "length _"]]:
    """Return the hidden states [P, H] that each site's attention module is given for `ids` [1, P]."""
    states: dict[int, Tensor] = {}

    def keep(site: int, args: tuple, named: dict[str, Any]) -> None:
        states[site] = (args[0] if args else named["hidden_states"])[0].detach()

    _run_hooked(model, ids, keep)
    return [states[site] for site in sorted(states)]


def _run_hooked(model: Any, ids: Tensor, keep: Callable[[int, tuple, dict[str, Any]], None]) -> None:
    """Run the model on `ids` [1, P], and call `keep` with the arguments of each attention module."""
    handles = [
        module.register_forward_pre_hook(
            lambda _module, args, named, site=site: keep(site, args, named), with_kwargs=True
        )
        for site, module in attention_modules(model).items()
    ]
    inputs = {"input_ids": ids, "use_cache": False}
    if getattr(model.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids
    try:
        model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
