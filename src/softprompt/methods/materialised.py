"""A trained prompt is materialised as plain tensors, which serving loads; no reparameterizer is left.

Every method that does not read the input ends as one. It is not trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from ..injection import Injection, SoftTokens
from .base import BaseModel, Features, SoftPrompt


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


def fits(injection: Injection, lm: BaseModel) -> bool:
    """Tell whether the vectors have the sizes of the model's layers."""
    for part in injection.channels().values():
        if isinstance(part, SoftTokens):
            if part.vectors.shape[-1] != lm.spec.hidden_size:
                return False
            continue
        if len(part.layers) != len(lm.spec.layers):
            return False
        for layer, spec in zip(part.layers, lm.spec.layers, strict=True):
            if layer is None:
                continue
            sizes = layer.key.shape[1], layer.key.shape[3], layer.value.shape[3]
            if spec is None or (spec.kv_heads, spec.head_dim, spec.v_head_dim) != sizes:
                return False
    return True
