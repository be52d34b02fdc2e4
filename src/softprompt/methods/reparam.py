"""Small networks that make prompt vectors easier to train, and are discarded afterwards."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
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


class LayerScale(nn.Module):
    """Holds a scale of each layer, times which vectors of unit scale are a prefix's keys, or its values.

        K_l = s_l · exp(g_l) · U_l

    U_l, with a root mean square of 1 at the start, and g_l, which starts at 0, are trained; s_l is fixed.
    An optimizer whose steps have the size of the learning rate (AdamW) then changes the same share of every
    layer's vectors, whatever their scale. Weight normalization (Salimans & Kingma 2016) has a scale of
    each vector and divides by its present norm; here it is one of each layer, and U_l is free.
    """

    start: Float[Tensor, "prompts layers"]

    def __init__(self, vectors: Float[Tensor, "prompts prefix numbers"], numbers: list[int]) -> None:
        super().__init__()
        self.numbers = numbers  # of a vector in each layer
        squares = [part.square().mean(2).mean(1) for part in vectors.split(numbers, dim=-1)]
        known = vectors.new_ones(vectors.shape[0], len(numbers))  # where a prefix has no vector to train
        size = torch.stack(squares, dim=1).sqrt().clamp(min=1e-6) if vectors.shape[1] else known
        self.register_buffer("start", size)
        self.change = nn.Parameter(torch.zeros_like(size))

    def divided(
        self, vectors: Float[Tensor, "prompts prefix numbers"]
    ) -> Float[Tensor, "prompts prefix numbers"]:
        """Return the vectors that the module was made of, at unit scale."""
        return vectors / self._spread(self.start)

    def forward(
        self, vectors: Float[Tensor, "batch prefix numbers"], prompt_ids: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch prefix numbers"]:
        return vectors * self._spread(self.start[prompt_ids] * self.change[prompt_ids].exp())

    def _spread(self, scale: Float[Tensor, "batch layers"]) -> Float[Tensor, "batch 1 numbers"]:
        counts = torch.tensor(self.numbers, device=scale.device)
        return scale.repeat_interleave(counts, dim=1)[:, None]
