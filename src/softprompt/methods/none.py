"""The method "none" injects nothing: the base is the plain model, or is trained alone (LoRA, full).

Every comparison needs it as the reference.
"""

from __future__ import annotations

from typing import final

from jaxtyping import Int
from torch import Tensor

from ..injection import Injection
from .base import Features, Setting, SoftPrompt


@final
class NoPrompt(SoftPrompt):
    """Injects nothing, under every prompt id."""

    def __init__(self, prompts: int) -> None:
        super().__init__()
        self.num_prompts = prompts

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        return Injection()


def build(setting: Setting) -> NoPrompt:
    """Build the method, which has no options."""
    return NoPrompt(len(setting.prompts))
