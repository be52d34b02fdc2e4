"""The frozen base is split over the devices of a run by torch's FSDP2 (`fully_shard`).

Each device holds its part of every layer. A layer's weights are gathered when it runs, and dropped after it,
in the forward and in the backward pass. Embeddings and the output layer stay whole on every device, since
they are also used outside the model's forward; prompts are trained outside the model, and are never split.
All processes must run the model equally often (see `TrainStep`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SoftPromptError
from . import gradient_checkpointing


def shard(model: Any, device: str, name: str) -> Any:
    """Split the layers of a model that was read into the processor's memory, and move the rest to `device`.

    Raises SoftPromptError where the run has one process, and for models that cannot be split.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if not dist.is_initialized() or dist.get_world_size() == 1:
        raise alone()
    backbone, layers = model.base_model, gradient_checkpointing.layers_of(model)
    if model.config.is_encoder_decoder or backbone is model or not layers:
        raise SoftPromptError(
            f"'{name}' cannot be split over devices",
            why="it is an encoder-decoder model"
            if model.config.is_encoder_decoder
            else "its layers are unknown",
            fix="leave train.shard out: then each device holds the whole model",
        )
    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    model.requires_grad_(False)
    inside = {id(p) for layer in layers for p in layer.parameters()}
    whole = {p for p in model.parameters() if id(p) not in inside}
    for tensor in (*whole, *model.buffers()):
        tensor.data = tensor.data.to(device)
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(backbone, mesh=mesh, ignored_params=whole)
    return model


def is_sharded(model: nn.Module) -> bool:
    """Return whether a model is split over devices."""
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with the parts of all processes, which must all call this."""
    if type(tensor) is Tensor or type(tensor) is nn.Parameter:
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def alone() -> SoftPromptError:
    """Make the error for a run in one process, which has nothing to split."""
    return SoftPromptError(
        "train.shard=true splits the base model over devices, but this run has one process",
        fix="softprompt tune RECIPE devices=N, or torchrun --nproc-per-node N -m softprompt tune RECIPE; "
        "or leave train.shard out",
    )
