"""A trained prompt is materialised as plain tensors, which serving loads; no reparameterizer is left.

Every method that does not read the input ends as one. It is not trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from ..injection import Injection
from .base import Features, SoftPrompt


@final
class Materialised(SoftPrompt):
    """Holds one injection of one row for each prompt."""

    def __init__(self, prompts: Sequence[Injection]) -> None:
        super().__init__()
        self.prompts = tuple(prompts)
        self.num_prompts = len(self.prompts)

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        ids = prompt_ids.tolist()
        if len(set(ids)) == 1:  # one row serves the whole batch, uncopied
            return self.prompts[ids[0]]
        return Injection.cat([self.prompts[i] for i in ids])


@torch.no_grad()
def materialise(method: SoftPrompt) -> Materialised | None:
    """Compute the method's prompts as tensors; None where they depend on the input."""
    if method.reads is not None:
        return None
    device = next((p.device for p in method.parameters()), torch.device("cpu"))
    ids = torch.arange(method.num_prompts, device=device)
    rows = [method(ids[i : i + 1]) for i in range(method.num_prompts)]
    return Materialised([row.map_rows(lambda t: t.detach().clone()) for row in rows])
