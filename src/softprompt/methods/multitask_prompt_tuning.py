"""A shared prompt is multiplied by low-rank factors of each task: multitask prompt tuning (Wang et al. 2023).

    P[k] = P_shared ∘ (U_k V_k),   U_k [P, r],  V_k [r, H]

Departure from the paper: the factors start so that U_k V_k is 1 (the shared prompt itself), with a
little noise; there is no distillation stage.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..injection import Injection
from . import init as initialisers
from .base import Features, Placement, Setting, SoftPrompt, soft_injection, soft_length
from .init import Init
from .transfer import Transfer


@final
class MultitaskPromptTuning(SoftPrompt):
    """Train a `shared` prompt, `columns` [prompts, prefix, rank] and `rows` [prompts, rank, hidden]."""

    def __init__(
        self, shared: Float[Tensor, "prefix hidden"], num_prompts: int, rank: int, placement: Placement
    ) -> None:
        super().__init__()
        length, size = shared.shape
        self.shared = nn.Parameter(shared)
        self.columns = nn.Parameter(1 + 0.02 * torch.randn(num_prompts, length, rank))
        self.rows = nn.Parameter((1 + 0.02 * torch.randn(num_prompts, rank, size)) / rank)
        self.placement: Placement = placement
        self.num_prompts = num_prompts

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        factors = self.columns[prompt_ids] @ self.rows[prompt_ids]  # [B, P, H]
        return soft_injection(self.shared * factors, self.placement)


def build(
    setting: Setting,
    *,
    length: int = 16,
    placement: Placement = "after",
    init: Init = "vocab",
    text: str | None = None,
    artifact: str | None = None,
    transfer: Transfer | None = None,
    rank: int = 1,
) -> MultitaskPromptTuning:
    """Build the method; `rank` is that of each task's factors."""
    shared = initialisers.soft_tokens(
        setting, soft_length(length, placement), init, text, artifact, transfer
    )[0]
    return MultitaskPromptTuning(shared, len(setting.prompts), rank, placement)
