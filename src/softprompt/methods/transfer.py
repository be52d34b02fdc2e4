"""Soft tokens are carried to another base model over the tokens that both vocabularies have.

See Lester et al. 2022, "Reducing Retraining by Recycling Parameter-Efficient Prompts".

    nearest   v ≈ Σ wᵢ S[tᵢ],  v' = Σ wᵢ T[tᵢ]     t: the tokens nearest to v by cosine, w: least squares
    linear    A, b = argmin ‖S A + b − T‖² + λ‖A‖²,  v' = v A + b

S [N, D] and T [N, H] are the two models' embeddings of the same N tokens. Departures: the paper combines
all tokens where `nearest` takes a few, and its linear map has neither b nor λ. A prefix cannot be carried:
no tokens link the keys and values of the two models' layers. This file knows no models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SoftPromptError

Transfer = Literal["nearest", "linear"]
NEIGHBOURS = 16  # tokens that a vector is expressed by
RIDGE = 1e-6  # λ, as a share of the embeddings' mean variance
HELD_OUT = 10  # one shared token in so many is kept to measure the map on
CHUNK = 8192  # tokens in double precision at once


@dataclass(frozen=True, slots=True)
class SharedTokens:
    """Two base models' embeddings of the tokens that both have, row by row."""

    source: Float[Tensor, "shared source"]
    target: Float[Tensor, "shared target"]


@dataclass(frozen=True, slots=True)
class OtherBase:
    """The base model that a prompt was trained on; its embeddings are read only when asked for."""

    name: str
    shared: Callable[[], SharedTokens]


@dataclass(frozen=True, slots=True)
class Carried:
    """Describes how vectors were carried, and the share that was kept."""

    transfer: Transfer
    source: str  # name of the base model they were trained on
    tokens: int  # shared by the two vocabularies
    explained: float  # nearest: share of the vectors' squared norm; linear: R² on held-out tokens

    def __str__(self) -> str:
        measure = {"nearest": "of the vectors' squared norm kept", "linear": "R² on held-out tokens"}
        return (
            f"vectors carried from '{self.source}' by transfer={self.transfer} over {self.tokens:,} shared "
            f"tokens: {self.explained:.3f} {measure[self.transfer]}"
        )


def nearest(
    vectors: Float[Tensor, "prefix source"], shared: SharedTokens
) -> tuple[Float[Tensor, "prefix target"], float]:
    """Carry soft tokens; also return the share of their squared norm that the tokens express."""
    unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
    cosines = [
        unit @ torch.nn.functional.normalize(part.float(), dim=-1).T for part in shared.source.split(CHUNK)
    ]
    count = min(NEIGHBOURS, *shared.source.shape)  # of more than D tokens the weights would not be determined
    tokens = torch.cat(cosines, dim=-1).topk(count, dim=-1).indices  # [P, K]
    wanted, basis = vectors.double(), shared.source[tokens].double()  # [P, D], [P, K, D]
    # the pseudo-inverse, for two tokens may have the same embedding
    weights = wanted[:, None] @ torch.linalg.pinv(basis)  # [P, 1, K]
    missed = (wanted - (weights @ basis)[:, 0]).square().sum() / wanted.square().sum()
    return (weights @ shared.target[tokens].double())[:, 0].float(), 1 - missed.item()


def linear(
    vectors: Float[Tensor, "prefix source"], shared: SharedTokens
) -> tuple[Float[Tensor, "prefix target"], float]:
    """Carry soft tokens; also return R² of the map on shared tokens that it was not fitted to.

    The map is fitted to all tokens before it is applied. Raises SoftPromptError where they are too few.
    """
    count, size = shared.source.shape
    held = torch.arange(count) % HELD_OUT == HELD_OUT - 1
    if int((~held).sum()) <= size or not held.any():
        raise SoftPromptError(
            f"transfer=linear needs more than {count} shared tokens",
            why=f"a map of {size} numbers each is not determined by so few",
            fix="use transfer=nearest",
        )
    weight, bias = _fit(shared.source[~held], shared.target[~held])
    real = shared.target[held].double()
    missed = (shared.source[held].double() @ weight + bias - real).square().sum()
    spread = (real - shared.target[~held].double().mean(0)).square().sum()
    explained = 1 - (missed / spread).item()
    weight, bias = _fit(shared.source, shared.target)
    return (vectors.double() @ weight + bias).float(), explained


TRANSFERS: dict[Transfer, Callable[[Tensor, SharedTokens], tuple[Tensor, float]]] = {
    "nearest": nearest,
    "linear": linear,
}


def _fit(
    source: Float[Tensor, "shared source"], target: Float[Tensor, "shared target"]
) -> tuple[Float[Tensor, "source target"], Float[Tensor, " target"]]:
    """Fit a ridge regression in double precision: its weight and its intercept."""
    size = source.shape[1]
    middle, goal = source.mean(0, dtype=torch.float64), target.mean(0, dtype=torch.float64)
    gram = torch.zeros(size, size, dtype=torch.float64)
    cross = torch.zeros(size, target.shape[1], dtype=torch.float64)
    for some, same in zip(source.split(CHUNK), target.split(CHUNK), strict=True):
        centred = some.double() - middle
        gram += centred.T @ centred
        cross += centred.T @ (same.double() - goal)
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    weight = torch.linalg.solve(gram + ridge, cross)
    return weight, goal - middle @ weight
