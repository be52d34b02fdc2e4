"""The parameters that a run trains, and the size of what it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.finetune import trained_weights
from ..methods.base import SoftPrompt
from ..methods.materialised import materialise

if TYPE_CHECKING:
    from .prepare import Prepared


def named_parameters(lm: LanguageModel, method: SoftPrompt) -> dict[str, Tensor]:
    """Return everything that is trained: the prompt's parameters, and the base's where it is not frozen."""
    prompt = {f"prompt.{name}": p for name, p in method.named_parameters() if p.requires_grad}
    return prompt | {f"base.{name}": p for name, p in trained_weights(lm).items()}


def trained_parameters(lm: LanguageModel, method: SoftPrompt) -> int:
    """Count the numbers that training changes."""
    return sum(p.numel() for p in named_parameters(lm, method).values())


def check_trains(run: Prepared) -> None:
    """Raise SoftPromptError for a run in which nothing is trained."""
    if trained_parameters(run.lm, run.method):
        return
    problem = f"the method '{run.recipe.method.name}' has nothing to train"
    if named_parameters(run.lm, run.method):  # tensors without a number
        raise SoftPromptError(
            problem,
            why="its only vector stays as it is (freeze_first)",
            fix="method.freeze_first=false, or method.length=2 or more",
        )
    raise SoftPromptError(
        problem,
        why="it puts no vectors into the model, which is frozen, and there is no head",
        fix="use another method, as method=prompt-tuning, or train the base with it: base=lora",
    )


def artifact_bytes(lm: LanguageModel, method: SoftPrompt) -> int:
    """Count the bytes of the tensors that serving loads, for all prompts (headers of a few kB aside)."""
    static = materialise(method)
    tensors = list(method.state_dict().values())
    if static is not None:
        tensors = []
        for injection in static.prompts:
            injection.map_rows(lambda tensor: tensors.append(tensor) or tensor)
        tensors = [tensor for tensor in tensors if tensor.dtype != torch.bool]  # masks are not saved
    tensors += trained_weights(lm).values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
