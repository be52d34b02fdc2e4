"""A shared MLP with a skip connection is added: residual prompt tuning (Razdaibiedina et al. 2023).

    P'[id] = P[id] + LayerNorm(W_up ReLU(W_down P[id]))

Both P and the MLP are trained; only P' is served. Departure: LayerNorm's gain starts at a tenth of
the embeddings' scale instead of 1.
"""

from __future__ import annotations

from typing import final

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..injection import Injection
from . import init as initialisers
from .base import Features, Placement, Setting, SoftPrompt, soft_injection, soft_length
from .init import Init
from .reparam import Residual
from .transfer import Transfer


@final
class ResidualPromptTuning(SoftPrompt):
    """Train `table` [prompts, prefix, hidden] and one MLP for all its vectors."""

    def __init__(
        self, table: Float[Tensor, "prompts prefix hidden"], placement: Placement, bottleneck: int
    ) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.residual = Residual(table.shape[2], bottleneck, table.std().item())
        self.placement: Placement = placement
        self.num_prompts = table.shape[0]

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        return soft_injection(self.residual(self.table[prompt_ids]), self.placement)


def build(
    setting: Setting,
    *,
    length: int = 10,
    placement: Placement = "after",
    init: Init = "vocab",
    text: str | None = None,
    artifact: str | None = None,
    transfer: Transfer | None = None,
    bottleneck: int = 128,
) -> ResidualPromptTuning:
    """Build the method; `bottleneck` is the MLP's width."""
    table = initialisers.soft_tokens(setting, soft_length(length, placement), init, text, artifact, transfer)
    return ResidualPromptTuning(table, placement, bottleneck)
