"""Decomposed prompt tuning (Xiao et al. 2023, arXiv 2310.10094) learns a soft prompt of low rank.

    P[id] = S[id] + A[id] B[id],    A [prompts, prefix, rank],  B [prompts, rank, hidden]

It trains rank · (prefix + hidden) numbers a prompt instead of prefix · hidden. Departure from the paper: the
product is added to a fixed start S of real tokens, and B starts at zero, so training begins at those tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from softprompt.injection import Injection
from softprompt.methods import init as initialisers
from softprompt.methods.base import Features, Placement, Setting, SoftPrompt, soft_injection
from softprompt.methods.init import Init


@final
class LowRankPrompt(SoftPrompt):
    """Soft tokens of low rank, added to real tokens (Xiao 2023)."""

    lr = 3e-2  # AdamW's, where the recipe names none

    def __init__(self, start: Tensor, rank: int, placement: Placement, generator: torch.Generator) -> None:
        super().__init__()
        prompts, length, hidden = start.shape
        self.num_prompts = prompts
        self.placement: Placement = placement
        self.register_buffer("start", start)  # saved, not trained
        self.left = nn.Parameter(torch.randn(prompts, length, rank, generator=generator) / rank**0.5)
        self.right = nn.Parameter(torch.zeros(prompts, rank, hidden))

    def forward(self, prompt_ids: Tensor, inputs: Features | None = None) -> Injection:
        """Return the soft tokens [batch, prefix, hidden] of the rows' prompts."""
        vectors = self.start[prompt_ids] + self.left[prompt_ids] @ self.right[prompt_ids]
        return soft_injection(vectors, self.placement)

    @staticmethod
    def build(
        setting: Setting,
        *,
        length: int = 16,
        rank: int = 4,
        placement: Placement = "after",
        init: Init = "vocab",
        text: str | None = None,
    ) -> LowRankPrompt:
        """Build the method; the keyword arguments are its options in recipes."""
        vectors = 2 * length if placement == "both" else length
        start = initialisers.soft_tokens(setting, vectors, init, text, artifact=None)
        return LowRankPrompt(start, rank, placement, setting.generator())


def brevity(prediction: str, references: Sequence[str]) -> float:
    """Return 1 where the answer has at most as many words as the longest reference, else less."""
    longest = max(len(reference.split()) for reference in references)
    return min(1.0, longest / max(1, len(prediction.split())))


def max_lines(value: Any, labels: Sequence[str] | None) -> Callable[[str], bool]:
    """Read the constraint `{max_lines: 2}`, and return its check of an answer."""
    if not isinstance(value, int) or value < 1:
        raise ValueError("it is a whole number from 1 up")
    return lambda text: len(text.splitlines()) <= value
