"""Some families have attention in a method of their own, not through transformers' interface.

GPT-J (before transformers 5.24) and GPT-Neo compute attention in a method `_attn`. On load it is replaced,
on the model's own instance, by one that calls our attention function with the same numbers: scores in
float32, the family's scale, and GPT-Neo's local window as part of the mask.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .attachment import attach
from .attention import attend_plain
from .masks import columns_ahead


def bind(model: nn.Module) -> None:
    """Replace the attention of such families by ours; other families are not changed."""
    for module in model.modules():
        kind = type(module).__name__
        if kind == "GPTJAttention" and hasattr(module, "scale_attn"):
            attend = partial(_attend, module, 1 / float(module.scale_attn), None)  # type: ignore[arg-type]
            object.__setattr__(module, "_attn", attend)  # a partial that holds a module is no submodule
        elif kind == "GPTNeoSelfAttention":
            local = module.attention_type == "local"
            window = int(module.config.window_size) if local else None  # type: ignore[union-attr]
            object.__setattr__(module, "_attn", partial(_attend, module, 1.0, window))


def _attend(
    module: nn.Module,
    scaling: float,
    window: int | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return what `_attn` returns: output [B, heads, q, d] and weights."""
    queries, keys = query.shape[2], key.shape[2]
    if attention_mask is None or window is not None:
        # a static cache has room behind the last token: there the window does not end with the keys
        ahead = keys - queries if attention_mask is None else columns_ahead(attention_mask, queries)
        at = (torch.arange(queries, device=query.device) + ahead)[:, None]
        column = torch.arange(keys, device=query.device)[None, :]
        seen = column <= at
        if window is not None:
            seen = seen & (column > at - window)
        causal = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
        attention_mask = causal if attention_mask is None else torch.minimum(causal, attention_mask)
    output, weights = attend_plain(
        module, query, key, value, attention_mask, scaling=scaling, sliding_window=window
    )
    return output.transpose(1, 2), weights


def let_generate_take_embeddings(model: Any) -> bool:
    """Change the model where its `generate` needs it to start from embeddings; return False where it cannot.

    transformers requires that the method that prepares a step names `inputs_embeds`. Where a family's method
    only passes its arguments on, it is tried, and replaced by one that has the name.
    """
    prepare = model.prepare_inputs_for_generation
    parameters = inspect.signature(prepare).parameters
    if "inputs_embeds" in parameters:
        return True
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return False
    width = model.get_input_embeddings().weight.shape[1]
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    vectors = torch.full((1, 2, width), 0.5, dtype=model.dtype, device=model.device)
    given = {"attention_mask": torch.ones_like(ids), "use_cache": True, "is_first_iteration": True}
    prepared = prepare(ids, inputs_embeds=vectors, **given)
    passed = prepared.get("inputs_embeds")
    if passed is None or not torch.equal(passed, vectors) or prepared.get("input_ids") is not None:
        return False
    with attach(model).changing(model):
        model.prepare_inputs_for_generation = partial(_prepare, model)
    return True


def _prepare(model: Any, input_ids: Tensor, inputs_embeds: Tensor | None = None, **kwargs: Any) -> Any:
    # transformers looks for the name `kwargs`, and then lets the arguments of the model's forward through
    return type(model).prepare_inputs_for_generation(model, input_ids, inputs_embeds=inputs_embeds, **kwargs)
