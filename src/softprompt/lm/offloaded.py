"""Weights that `device_map` keeps off the model, in memory or on disk, until a layer runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SoftPromptError
from .quantization import dequantized
from .sharded import whole


def read(model: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """Return the numbers of an entry of the model's state, also where they are offloaded or split."""
    if not tensor.is_meta:
        return whole(tensor)
    path, _, leaf = name.rpartition(".")
    for hook in _hooks(model.get_submodule(path)):
        if getattr(hook, "weights_map", None) is not None:
            return hook.weights_map[leaf]
    raise SoftPromptError(
        f"the weight {name} has no numbers",
        why="it is on torch's meta device, and no hook of accelerate's brings it in",
        fix="load the model with from_pretrained, which reads its weights",
    )


def plain_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every entry of the model's state by name: offloaded ones are read, quantized ones are numbers."""
    for name, tensor in sorted(model.state_dict().items()):
        yield name, dequantized(read(model, name, tensor))


def execution_device(model: Any) -> torch.device:
    """Return the device that the model takes its inputs on."""
    embeddings = model.get_input_embeddings()
    device = next((hook.execution_device for hook in _hooks(embeddings)), None)
    if device is not None:
        return torch.device(device if not isinstance(device, int) else f"cuda:{device}")
    return model.device


def devices(model: nn.Module) -> list[str]:
    """Return the devices that the model's layers run on, each once."""
    named = (getattr(hook, "execution_device", None) for part in model.modules() for hook in _hooks(part))
    hooked = {str(torch.device(f"cuda:{d}" if isinstance(d, int) else d)) for d in named if d is not None}
    return sorted(hooked or {str(p.device) for p in model.parameters() if not p.is_meta})


def _hooks(module: nn.Module) -> Iterator[Any]:
    """Yield accelerate's hooks of a module."""
    hook = getattr(module, "_hf_hook", None)
    for each in (hook, *getattr(hook, "hooks", ())):
        if hasattr(each, "execution_device"):
            yield each
