"""Soft tokens are made by a small LSTM or MLP: P-tuning (Liu et al. 2021, "GPT understands, too").

    P[id] = anchor[id] + MLP(LSTM(E[id]))

Departure from the paper: the encoder's output is added to a fixed anchor (tokens of the training
text), and its last layer starts near zero, so training starts from real tokens and not from noise.
The encoder is discarded afterwards: what is served is the materialised P.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..injection import Injection
from . import init as initialisers
from .base import Features, Placement, Setting, SoftPrompt, soft_injection, soft_length
from .init import Init
from .reparam import mlp
from .transfer import Transfer


@final
class PTuning(SoftPrompt):
    """Train the encoder and its input embeddings; `anchor` [prompts, prefix, hidden] stays fixed."""

    anchor: Float[Tensor, "prompts prefix hidden"]

    def __init__(
        self,
        anchor: Float[Tensor, "prompts prefix hidden"],
        placement: Placement,
        encoder: Literal["lstm", "mlp"],
        hidden: int,
    ) -> None:
        super().__init__()
        self.register_buffer("anchor", anchor)
        self.embedding = nn.Parameter(torch.randn(anchor.shape[0], anchor.shape[1], hidden))
        self.lstm = (
            nn.LSTM(hidden, hidden // 2, num_layers=2, bidirectional=True, batch_first=True)
            if (encoder == "lstm")
            else None
        )
        self.head = mlp(hidden, hidden, anchor.shape[2], nn.ReLU(), scale=anchor.std().item())
        self.placement: Placement = placement
        self.num_prompts = anchor.shape[0]

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        # a prompt that several rows share is encoded once
        ids, rows = prompt_ids.unique(return_inverse=True)
        hidden = self.embedding[ids]
        if self.lstm is not None:
            hidden = self.lstm(hidden)[0]
        return soft_injection((self.anchor[ids] + self.head(hidden))[rows], self.placement)


def build(
    setting: Setting,
    *,
    length: int = 16,
    placement: Placement = "after",
    init: Init = "vocab",
    text: str | None = None,
    artifact: str | None = None,
    transfer: Transfer | None = None,
    encoder: Literal["lstm", "mlp"] = "mlp",
    hidden: int = 128,
) -> PTuning:
    """Build the method; `encoder` is the reparameterization, `hidden` its width (even)."""
    anchor = initialisers.soft_tokens(setting, soft_length(length, placement), init, text, artifact, transfer)
    return PTuning(anchor, placement, encoder, hidden)
