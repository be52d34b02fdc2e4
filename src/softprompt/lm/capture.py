"""Keys and values that a layer's own projections make of vectors that are not tokens (LLaMA-Adapter).

The layer's attention module is called as it stands, with the arguments that the model itself gives
it for one token at position 0 (where nothing is rotated), and its keys and values are taken where
they reach the attention function. So fused projections, key norms and biases need no code here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..injection import LayerKV
from .cache_name import NAMES
from .injected import CALLS, SITE, Active, Captured, inject


def attention_modules(model: nn.Module) -> dict[int, nn.Module]:
    """The attention modules by site (see `lm.probe`)."""
    found = [m for m in model.modules() if hasattr(m, SITE)]
    return {getattr(m, SITE) + call: m for m in found for call in range(getattr(m, CALLS, 1))}


def project(model, layer: int, hidden: Tensor) -> LayerKV:
    """Keys and values [1, kv_heads, P, head_dim] of `hidden` [1, P, H], with no rotation.

    A layer that attends to another layer's keys has no projections: those of the other are taken.
    """
    given, makers = _arguments(model)
    layer = makers[layer]
    module, length = attention_modules(model)[layer], hidden.shape[1]
    positional, named = given[layer]

    def stretch(value: Any) -> Any:
        """What belongs to one token, for all of them; a mask [1, 1, 1, 1] for all pairs of them."""
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
    with inject(Active(capture=layer - getattr(module, SITE))):
        try:
            module(*([hidden, *rest] if positional else []), **named)
        except Captured as captured:
            return captured.layer
    raise RuntimeError(f"layer {layer} did not reach the attention function")


@torch.no_grad()
def _arguments(model) -> tuple[dict[int, tuple[tuple, dict[str, Any]]], dict[int, int]]:
    """What the model gives each attention module besides hidden states, for a token at position 0.

    And by site, the site that makes its keys: another one where layers share them. Kept on the model: the
    same at every call, until it is moved or cast.
    """
    place = model.device, model.dtype
    of, kept, makers = getattr(model, "_softprompt_arguments", (None, {}, {}))
    if of != place:
        kept = {}

        def keep(site: int, args: tuple, named: dict[str, Any]) -> None:
            without = {k: v for k, v in named.items() if k not in ("hidden_states", *NAMES)}
            kept[site] = args, without

        # what is kept must serve any later call: one with gradient too, in the model's own precision
        as_it_is = torch.autocast(model.device.type, enabled=False)
        active = Active(record={})  # so a mask is made
        with torch.inference_mode(False), torch.no_grad(), as_it_is, inject(active):
            _run_hooked(model, torch.zeros(1, 1, dtype=torch.long, device=model.device), keep)
        assert active.record is not None
        keys = {site: layer.key for site, layer in sorted(active.record.items())}
        makers = {site: next(s for s, key in keys.items() if key is own) for site, own in keys.items()}
        model._softprompt_arguments = place, kept, makers
    return kept, makers


def attention_inputs(model, ids: Tensor) -> list[Tensor]:
    """Hidden states [P, H] that each site's attention module is given for `ids` [1, P]."""
    found: dict[int, Tensor] = {}

    def keep(site: int, args: tuple, named: dict[str, Any]) -> None:
        found[site] = (args[0] if args else named["hidden_states"])[0].detach()

    _run_hooked(model, ids, keep)
    return [found[site] for site in sorted(found)]


def _run_hooked(model, ids: Tensor, keep) -> None:
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
