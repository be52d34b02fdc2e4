"""Small networks that make prompt vectors easier to train, and are discarded afterwards."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def mlp(size_in: int, middle: int, size_out: int, activation: nn.Module, *, scale: float) -> nn.Sequential:
    """Build Linear – activation – Linear, whose output starts near zero.

    `scale` is the size of what the output is added to; the last layer starts at a hundredth of it,
    not at zero, so that gradient reaches every parameter from the first step.
    """
    last = nn.Linear(middle, size_out)
    nn.init.normal_(last.weight, std=0.01 * scale / middle**0.5)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(size_in, middle), activation, last)


class Residual(nn.Module):
    """Compute x + LayerNorm(up(ReLU(down(x)))), the shared bottleneck of residual prompt tuning."""

    def __init__(self, size: int, bottleneck: int, scale: float) -> None:
        super().__init__()
        self.down = nn.Linear(size, bottleneck)
        self.up = nn.Linear(bottleneck, size)
        self.norm = nn.LayerNorm(size)
        # LayerNorm's unit output would drown embeddings, whose scale is a tenth of it and less
        nn.init.constant_(self.norm.weight, 0.1 * scale)

    def forward(self, x: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        return x + self.norm(self.up(torch.relu(self.down(x))))
