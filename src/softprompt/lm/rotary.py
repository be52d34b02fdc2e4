"""Keys are moved from one position to another, exactly.

Rotary embedding (Su et al. 2021) rotates a key by an angle proportional to its position, so a key at
position p becomes the one at p + d by the rotation for d. Which frequencies and which pairing of
dimensions a layer uses is found by trying: the right candidate takes the model's own keys at one position
to its own keys at another. This file knows nothing of methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import SoftPromptError
from ..injection import LayerKV, Layers

Pairing = Literal["half", "interleaved"]


@dataclass(frozen=True, slots=True)
class Rotation:
    """One layer encodes position in its keys like this; `frequencies` None: not at all."""

    frequencies: Float[Tensor, " pairs"] | None  # radians per position
    pairing: Pairing = "half"
    last: bool = False  # partial rotary: whether the last dimensions rotate, and not the first (MLA)

    def beside(self, key: Tensor) -> Rotation:
        """Return the same with its numbers where a layer's keys are, so that no step copies them to a GPU."""
        there = None if self.frequencies is None else self.frequencies.to(key.device)
        return replace(self, frequencies=there)

    def __call__(
        self, key: Float[Tensor, "rows heads length head_dim"], delta: Int[Tensor, " batch"] | int
    ) -> Float[Tensor, "out_rows heads length head_dim"]:
        """Move `key` [B, heads, P, head_dim] by `delta` positions ([B], or one number for all)."""
        if self.frequencies is None:
            return key
        delta = torch.as_tensor(delta, device=key.device, dtype=torch.float32).reshape(-1, 1, 1, 1)
        angle = delta * self.frequencies.to(key.device)  # [B or 1, 1, 1, dims / 2]
        cos, sin = angle.cos(), angle.sin()
        dims = 2 * self.frequencies.shape[0]  # partial rotary leaves the other dimensions alone
        if self.last:
            rest, rotated = key.split([key.shape[-1] - dims, dims], dim=-1)
        else:
            rotated, rest = key.split([dims, key.shape[-1] - dims], dim=-1)
        rotated = rotated.float()
        # the pair (a, b) becomes (a, b) cos + (-b, a) sin: one row of keys is moved to many places at once
        if self.pairing == "half":
            a, b = rotated.chunk(2, dim=-1)
            across = torch.cat([-b, a], dim=-1)
            cos, sin = cos.repeat(1, 1, 1, 2), sin.repeat(1, 1, 1, 2)
        else:
            across = torch.stack([-rotated[..., 1::2], rotated[..., 0::2]], dim=-1).flatten(-2)
            cos, sin = cos.repeat_interleave(2, dim=-1), sin.repeat_interleave(2, dim=-1)
        rotated = (rotated * cos + across * sin).to(key.dtype)
        if not rest.shape[-1]:
            return rotated
        rest = rest.expand(*rotated.shape[:-1], -1)
        return torch.cat([rest, rotated] if self.last else [rotated, rest], dim=-1)


def candidates(model: nn.Module) -> list[Rotation]:
    """Return every rotation of keys that the model's own buffers suggest, the identity first."""
    rotations = [Rotation(None)]
    seen: list[Tensor] = []
    for name, buffer in model.named_buffers():
        frequencies = _frequencies(name.rsplit(".", 1)[-1], buffer)
        if frequencies is None or any(torch.equal(frequencies, other) for other in seen):
            continue
        seen.append(frequencies)
        pairings: tuple[Pairing, ...] = ("half", "interleaved")
        signs = (frequencies, -frequencies)  # some families rotate the other way round
        rotations += [
            Rotation(signed, pairing, last)
            for signed in signs
            for last in (False, True)
            for pairing in pairings
        ]
    return rotations


def has_table(model: nn.Module) -> bool:
    """Return whether rotations are looked up in a table, which ends with the context, not computed."""
    names = [name.rsplit(".", 1)[-1] for name, _ in model.named_buffers()]
    return "embed_positions" in names or not any(name.endswith("inv_freq") for name in names)


def _frequencies(name: str, buffer: Tensor) -> Tensor | None:
    if name.endswith("inv_freq") and "original" not in name:
        return buffer.detach().float().cpu()
    if name == "embed_positions" and buffer.dim() == 2 and buffer.shape[0] > 1:
        # GPT-J keeps sines and cosines of every position; those of position 1 tell the angle
        sine, cosine = buffer[1].detach().float().cpu().chunk(2)
        return torch.atan2(sine, cosine)
    return None


def find_rotation(
    candidates: list[Rotation],
    here: Float[Tensor, "batch heads length head_dim"],
    there: Float[Tensor, "batch heads length head_dim"],
    delta: int,
    tolerance: float,
) -> Rotation | None:
    """Return the candidate that takes keys `here` to keys `there`, `delta` positions on; None: none does."""
    scale = there.float().abs().max().clamp(min=1e-6)
    fitting = [r for r in candidates if r.frequencies is None or 2 * len(r.frequencies) <= here.shape[-1]]
    errors = [((rotate(here, delta) - there).float().abs().max() / scale).item() for rotate in fitting]
    best = min(range(len(fitting)), key=errors.__getitem__)
    return fitting[best].beside(here) if errors[best] < tolerance else None


def moved(
    layers: Layers, rotations: Sequence[Rotation | None], delta: Int[Tensor, " batch"] | int, family: str
) -> Layers:
    """Return the layers with their keys moved by `delta` positions ([B], or one number for all rows).

    Raises SoftPromptError where a layer's rotation is not known.
    """
    result: list[LayerKV | None] = []
    for layer, rotate in zip(layers, rotations, strict=True):
        if layer is None:
            result.append(None)
            continue
        if rotate is None:
            raise SoftPromptError(
                f"a trained prefix cannot be moved to another position on a {family} model",
                why="how it rotates its keys by position was not recognised",
                fix="use placement=before with init=random, or a soft prompt (prompt-tuning)",
            )
        result.append(LayerKV(rotate(layer.key, delta), layer.value, layer.gate))
    return tuple(result)
