"""With gradient checkpointing, layers are computed again in the backward pass, which saves memory.

transformers' own switch works only in layers that are training: some would then drop out numbers, and all
would lose the KV cache in `generate`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .injected import checkpoint_contexts


def layers_of(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the layers that can be computed again in the backward pass; none in some families.

    Of layers inside others, these are the outer ones.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    inner = {part for layer in layers for part in layer.modules() if part is not layer}
    return tuple(layer for layer in layers if layer not in inner)


@contextlib.contextmanager
def recomputed(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Compute each layer that runs inside again in the backward pass, where gradient is needed."""
    layers = layers if torch.is_grad_enabled() else ()
    before = [(layer, vars(layer).get("forward")) for layer in layers]
    for layer in layers:
        layer.forward = partial(_checkpoint, layer.forward)
    try:
        yield
    finally:
        for layer, forward in before:
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def _checkpoint(function: Any, *args: Any, **named: Any) -> Any:
    return torch.utils.checkpoint.checkpoint(
        function, *args, use_reentrant=False, context_fn=checkpoint_contexts, **named
    )
