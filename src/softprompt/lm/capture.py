"""Keys and values that a layer's own projections make of vectors that are not tokens (LLaMA-Adapter).

The layer's attention module is called as it stands and its keys and values are taken where they
reach the attention function, so fused projections, key norms and biases need no code here.
"""

from __future__ import annotations

import inspect

from torch import Tensor, nn

from ..injection import LayerKV
from .attention import Active, Captured, inject


def attention_modules(model: nn.Module) -> dict[int, nn.Module]:
    """The self-attention module of each layer, by layer index."""
    found: dict[int, nn.Module] = {}
    for name, module in model.named_modules():
        last = name.rsplit(".", 1)[-1].lower()
        index = getattr(module, "layer_idx", None)
        if isinstance(index, int) and ("attn" in last or "attention" in last):
            found.setdefault(index, module)
    return found


def project(model, layer: int, hidden: Tensor) -> LayerKV:
    """Keys and values [1, kv_heads, P, head_dim] of `hidden` [1, P, H], with no rotation."""
    module = attention_modules(model)[layer]
    accepted = inspect.signature(module.forward).parameters
    extra = {}
    if "position_embeddings" in accepted:
        spec_dim = getattr(module, "head_dim", hidden.shape[-1])
        shape = (1, hidden.shape[1], spec_dim)
        # the angle of position 0: cos 1, sin 0
        extra["position_embeddings"] = (hidden.new_ones(shape), hidden.new_zeros(shape))
    if "attention_mask" in accepted:
        extra["attention_mask"] = None
    with inject(Active(capture=True)):
        try:
            module(hidden, **extra)
        except Captured as captured:
            return captured.layer
    raise RuntimeError(f"layer {layer} did not reach the attention function")


def attention_inputs(model, ids: Tensor, layers: int) -> list[Tensor | None]:
    """Hidden states [P, H] that each layer's attention module is given for `ids` [1, P]."""
    found: list[Tensor | None] = [None] * layers
    handles = []
    for index, module in attention_modules(model).items():

        def keep(_module, args, kwargs, index=index):
            hidden = args[0] if args else kwargs["hidden_states"]
            found[index] = hidden[0].detach()

        handles.append(module.register_forward_pre_hook(keep, with_kwargs=True))
    try:
        model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found
