"""Prefix tuning (Li & Liang 2021) trains keys and values in every layer, which are looked up by prompt id.

`placement=after` is their infix: seen from the last input token on. Direct parameters by default
(P-tuning v2); `reparameterize=True` makes them by the paper's Linear–Tanh–Linear, added to a fixed
start. `values_only` keeps the keys where they start (CT-KV: half the parameters, little lost);
`freeze_first` keeps the first vector, which acts as the attention sink (Cartridges).
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..injection import Injection
from . import init as initialisers
from .base import Features, KVPlacement, PrefixLayers, Setting, SoftPrompt, Stacks, kv_injection
from .init import Init
from .reparam import mlp


@final
class PrefixTuning(SoftPrompt):
    """Look up `keys` and `values`, in which all layers are side by side."""

    keys: Float[Tensor, "prompts prefix keys"]
    values: Float[Tensor, "prompts prefix values"]
    first_keys: Float[Tensor, "prompts first keys"]
    first_values: Float[Tensor, "prompts first values"]

    def __init__(
        self,
        places: PrefixLayers,
        keys: Float[Tensor, "prompts prefix keys"],
        values: Float[Tensor, "prompts prefix values"],
        placement: KVPlacement,
        *,
        values_only: bool,
        freeze_first: bool,
        reparameterize: bool,
        middle: int,
    ) -> None:
        super().__init__()
        self.places = places
        self.placement: KVPlacement = placement
        self.num_prompts = values.shape[0]
        frozen = 1 if freeze_first else 0
        self.register_buffer("first_keys", keys[:, :frozen])
        self.register_buffer("first_values", values[:, :frozen])
        trained = None if reparameterize else nn.Parameter
        self._hold("keys", keys[:, frozen:], None if values_only else trained)
        self._hold("values", values[:, frozen:], trained)
        self.embedding = self.key_mlp = self.value_mlp = None
        if reparameterize:
            prompts, trained_length = self.values.shape[:2]
            self.embedding = nn.Parameter(torch.randn(prompts, trained_length, middle))
            if not values_only:
                self.key_mlp = mlp(middle, middle, keys.shape[2], nn.Tanh(), scale=keys.std().item())
            self.value_mlp = mlp(middle, middle, values.shape[2], nn.Tanh(), scale=values.std().item())

    def _hold(self, name: str, tensor: Tensor, trained) -> None:
        if trained is None:
            self.register_buffer(name, tensor)
        else:
            self.register_parameter(name, trained(tensor))

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        # one copy serves all rows where all have the same prompt: layers broadcast over the batch
        ids, rows = prompt_ids.unique(return_inverse=True)
        keys, values = self.keys[ids], self.values[ids]
        if self.embedding is not None:
            hidden = self.embedding[ids]
            keys = keys if self.key_mlp is None else keys + self.key_mlp(hidden)
            assert self.value_mlp is not None
            values = values + self.value_mlp(hidden)
        keys = torch.cat([self.first_keys[ids], keys], dim=1)
        values = torch.cat([self.first_values[ids], values], dim=1)
        if len(ids) > 1:
            keys, values = keys[rows], values[rows]
        return kv_injection(self.places.unflatten(keys, values), self.placement)


def build(
    setting: Setting,
    *,
    length: int = 16,
    placement: KVPlacement = "after",
    init: Init = "context",
    text: str | None = None,
    artifact: str | None = None,
    values_only: bool = False,
    freeze_first: bool = False,
    reparameterize: bool = False,
    middle: int = 512,
    stacks: Stacks = "all",
) -> PrefixTuning:
    """Build prefixes of `length` vectors a layer; `middle` is the width of the reparameterization.

    `stacks` chooses attention layers of an encoder-decoder model: its encoder's, its decoder's own, or the
    decoder's over the encoder's output (cross).
    """
    places = PrefixLayers.choose(setting.lm.spec, stacks, placement)
    keys, values = initialisers.prefix(setting, places, length, init, text, artifact)
    return PrefixTuning(
        places,
        keys,
        values,
        placement,
        values_only=values_only,
        freeze_first=freeze_first,
        reparameterize=reparameterize,
        middle=middle,
    )
