"""No prompt at all: the plain model, or a base that is trained alone (LoRA, full fine-tuning).

The reference that every comparison needs, as a method like any other.
"""

from __future__ import annotations

from typing import final

from jaxtyping import Int
from torch import Tensor

from ..injection import Injection
from .base import Features, Setting, SoftPrompt


@final
class NoPrompt(SoftPrompt):
    """Injects nothing, whatever the prompt id."""

    def __init__(self, prompts: int) -> None:
        super().__init__()
        self.prompts = prompts

    @property
    def num_prompts(self) -> int:
        return self.prompts

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        return Injection()


def build(setting: Setting) -> NoPrompt:
    """Has no options."""
    return NoPrompt(len(setting.prompts))
