"""Moving a key from one position to another, exactly.

Rotary embedding (Su et al. 2021) turns a key by an angle proportional to its position, so a key at
position p becomes the one at p + d by the rotation for d. Which frequencies and which pairing of
dimensions a layer uses is found by trying: the candidate that turns the model's own keys at one
position into its own keys at another is the right one. This file knows nothing of methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Pairing = Literal["half", "interleaved"]


@dataclass(frozen=True, slots=True)
class Turn:
    """How one layer encodes position in its keys; `frequencies` None: not at all."""

    frequencies: Tensor | None  # [dims / 2], radians per position
    pairing: Pairing = "half"

    def __call__(self, key: Tensor, delta: Tensor | int) -> Tensor:
        """`key` [B, heads, P, head_dim] moved by `delta` positions ([B], or one number for all)."""
        if self.frequencies is None:
            return key
        delta = torch.as_tensor(delta, device=key.device, dtype=torch.float32).reshape(-1, 1, 1, 1)
        angle = delta * self.frequencies.to(key.device)  # [B or 1, 1, 1, dims / 2]
        cos, sin = angle.cos(), angle.sin()
        turned = 2 * self.frequencies.shape[0]  # partial rotary leaves the other dimensions alone
        rotated, rest = key[..., :turned].float(), key[..., turned:]
        if self.pairing == "half":
            a, b = rotated.chunk(2, dim=-1)
            rotated = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
        else:
            a, b = rotated[..., 0::2], rotated[..., 1::2]
            rotated = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        rotated = rotated.to(key.dtype)
        return (
            torch.cat([rotated, rest.expand(*rotated.shape[:-1], -1)], dim=-1) if rest.shape[-1] else rotated
        )


def candidates(model: nn.Module) -> list[Turn]:
    """Every way of turning keys that the model's own buffers suggest, the identity first."""
    turns = [Turn(None)]
    seen: list[Tensor] = []
    for name, buffer in model.named_buffers():
        is_frequency = name.endswith("inv_freq") and "original" not in name.rsplit(".", 1)[-1]
        if not is_frequency or any(torch.equal(buffer, other) for other in seen):
            continue
        seen.append(buffer)
        pairings: tuple[Pairing, ...] = ("half", "interleaved")
        turns += [Turn(buffer.detach().float().cpu(), pairing) for pairing in pairings]
    return turns


def find_turn(options: list[Turn], here: Tensor, there: Tensor, delta: int, tolerance: float) -> Turn | None:
    """The option that takes keys `here` to keys `there`, `delta` positions on; None where none does."""
    scale = there.float().abs().max().clamp(min=1e-6)
    errors = [((turn(here, delta) - there).float().abs().max() / scale).item() for turn in options]
    best = min(range(len(options)), key=errors.__getitem__)
    return options[best] if errors[best] < tolerance else None
