"""The base model can be trained with a prompt or prefix, or alone: LoRA through peft, or every weight.

A classification head, where the model has one, is trained in every mode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import SoftPromptError
from .base import LanguageModel
from .quantization import of_model

BaseMode = Literal["frozen", "lora", "full"]
LEARNING_RATE = {"frozen": 1e-3, "lora": 5e-4, "full": 2e-5}  # frozen: of a head, if there is one


def unfreeze(
    lm: LanguageModel,
    mode: BaseMode,
    *,
    rank: int = 8,
    alpha: int = 16,
    targets: Sequence[str] | None = None,
    seed: int = 0,
) -> None:
    """Make the base trainable in place; `frozen` trains its head alone, if it has one.

    Raises SoftPromptError where peft is missing (lora), where the model carries LoRA weights of an earlier
    run, or where weights are not float32 (full, or a head: an update in bfloat16 is lost to rounding).
    """
    refuse_adapters(lm.model)
    if (mode == "full" or lm.head_names) and lm.dtype != torch.float32:
        raise SoftPromptError(
            f"{'base=full' if mode == 'full' else 'a head'} needs float32 weights",
            why="small updates vanish in bfloat16",
            fix="add train.dtype=float32",
        )
    if mode == "full" and of_model(lm.model) is not None:
        raise SoftPromptError(
            "base=full cannot train quantized weights",
            why="a step is smaller than the distance between two of their values",
            fix="use base=lora or base=frozen, or load the model without quantization",
        )
    if mode != "frozen" and lm.weights == "int8":
        raise SoftPromptError(
            f"base={mode} cannot be combined with weights=int8",
            why="the weights are rounded once, and stay as they are",
            fix="use base=frozen, or leave weights=int8 out",
        )
    if mode == "full":
        lm.model.requires_grad_(True)
        return
    for name, parameter in lm.model.named_parameters():
        parameter.requires_grad_(name in lm.head_names)
    if mode == "frozen":
        return
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise SoftPromptError("base=lora needs peft", fix="pip install 'softprompt[lora]'") from None
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets) if targets else None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, lm.model)
        except ValueError as error:
            raise SoftPromptError(
                "LoRA found nothing to adapt", why=str(error), fix="set base.targets=[…]"
            ) from error
    for name, parameter in lm.model.named_parameters():
        parameter.requires_grad_("lora_" in name or name in lm.head_names)
        if "lora_" in name:  # float32 for the same reason as above; peft casts its input
            parameter.data = parameter.data.float()


def refuse_adapters(model: nn.Module) -> None:
    """Raise SoftPromptError for a model that carries LoRA weights, which are no part of its fingerprint."""
    if any("lora_" in name for name, _ in model.named_parameters()):
        raise SoftPromptError(
            "this model carries LoRA weights already",
            why="an earlier run has trained them, and what is trained now would depend on them",
            fix="load the base model anew",
        )


@contextlib.contextmanager
def without_adapters(lm: LanguageModel) -> Iterator[None]:
    """Run the base without its LoRA weights, if it has any."""
    layers: list[Any] = [m for m in lm.model.modules() if hasattr(m, "lora_A")]
    trained = {p: p.requires_grad for p in lm.model.parameters()} if layers else {}
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, is_trained in trained.items():
            parameter.requires_grad_(is_trained)


def trained_weights(lm: LanguageModel) -> dict[str, Tensor]:
    """Return the base parameters that are trained, by name; empty for a frozen base."""
    return {name: p for name, p in lm.model.named_parameters() if p.requires_grad}


def load_weights(lm: LanguageModel, weights: Mapping[str, Tensor]) -> None:
    """Copy saved base weights into an unfrozen model."""
    parameters = dict(lm.model.named_parameters())
    missing = sorted(
        n for n, saved in weights.items() if n not in parameters or parameters[n].shape != saved.shape
    )
    if missing:
        raise SoftPromptError(
            f"the base model has no weight named '{missing[0]}' of the saved size",
            why=f"{len(missing)} saved weights do not fit it",
            fix="load the artifact on the base it was trained on",
        )
    with torch.no_grad():
        for name, tensor in weights.items():
            parameters[name].copy_(tensor)
