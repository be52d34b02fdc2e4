"""Prompt tuning learns soft tokens, which are looked up by prompt id (Lester et al. 2021).

    x' = [P[id]; x]  (placement before)   or   x' = [x; P[id]]  (placement after)

P is a table [num_prompts, P, H] of free parameters. Departures from the paper: AdamW instead of
Adafactor, and vectors start as tokens of the training text by default.
"""

from __future__ import annotations

from typing import final

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..injection import Injection
from . import init as initialisers
from .base import Features, Placement, Setting, SoftPrompt, soft_injection, soft_length
from .init import Init
from .transfer import Transfer


@final
class PromptTuning(SoftPrompt):
    """Look up soft tokens in `table` [prompts, prefix, hidden]."""

    def __init__(self, table: Float[Tensor, "prompts prefix hidden"], placement: Placement) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.placement: Placement = placement
        self.num_prompts = table.shape[0]

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        return soft_injection(self.table[prompt_ids], self.placement)


def build(
    setting: Setting,
    *,
    length: int = 16,
    placement: Placement = "after",
    init: Init = "vocab",
    text: str | None = None,
    artifact: str | None = None,
    transfer: Transfer | None = None,
) -> PromptTuning:
    """Build prompts of `length` soft tokens."""
    length = soft_length(length, placement)
    return PromptTuning(initialisers.soft_tokens(setting, length, init, text, artifact, transfer), placement)
