"""A classification head that no checkpoint brought has random weights: it is trained with the prompt."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import SoftPromptError
from ..lm import in_memory
from ..lm.base import LanguageModel


def is_fresh(base: Any) -> bool:
    """Return whether the model has a head that its checkpoint does not name among its architectures."""
    saved = getattr(base.config, "architectures", None) or ()
    return in_memory.head_of(base) is not None and type(base).__name__ not in saved


def train(base: Any, lm: LanguageModel) -> None:
    """Let the head be trained, where it is a part that training changes.

    Raises SoftPromptError for a head whose weights are not float32.
    """
    head = {name: p for name, p in base.named_parameters() if name in lm.head_names}
    odd = next((p.dtype for p in head.values() if p.dtype != torch.float32), None)
    if odd is not None:
        raise SoftPromptError(
            f"the head of {type(base).__name__} would be trained in {str(odd).removeprefix('torch.')}",
            why="the checkpoint did not bring it, and small updates vanish in less than float32",
            fix="load the model with dtype=torch.float32",
        )
    for parameter in head.values():
        parameter.requires_grad_(True)
