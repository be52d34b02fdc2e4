"""Prefix tuning (Li & Liang 2021) trains keys and values in every layer, which are looked up by prompt id.

`placement=after` is their infix: seen from the last input token on. Direct parameters by default
(P-tuning v2); `reparameterize=True` makes them by the paper's Linear–Tanh–Linear, added to a fixed
start. `values_only` keeps the keys where they start (CT-KV: half the parameters, little lost);
`freeze_first` keeps the first vector, which acts as the attention sink (Cartridges). `layer_scale` trains
vectors at unit scale and a scale of each layer (weight normalization, see `reparam.LayerScale`).

`init=demonstrations` is CT-KV (2507.04221): the start is the KV of the demonstrations of a few-shot prompt.
While it trains, `leave_one_out` hides from a row that is one of them the columns of that one, and
`token_dropout` hides every column but the first with that probability.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import SoftPromptError
from ..injection import Injection
from . import init as initialisers
from . import matched_start
from .base import (
    Features,
    Hiding,
    KVPlacement,
    PrefixLayers,
    Setting,
    SoftPrompt,
    Stacks,
    kv_injection,
)
from .init import PrefixInit
from .reparam import LayerScale, mlp


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
        layer_scale: bool = False,
        hiding: Hiding | None = None,
    ) -> None:
        super().__init__()
        self.hiding = hiding
        self.places = places
        self.placement: KVPlacement = placement
        self.num_prompts = values.shape[0]
        frozen = 1 if freeze_first else 0
        self.register_buffer("first_keys", keys[:, :frozen])
        self.register_buffer("first_values", values[:, :frozen])
        trained = None if reparameterize else nn.Parameter
        keys, values = keys[:, frozen:], values[:, frozen:]
        self.key_scale = self.value_scale = None
        if layer_scale and not values_only:
            self.key_scale = LayerScale(keys, places.key_sizes)
            keys = self.key_scale.divided(keys)
        if layer_scale:
            self.value_scale = LayerScale(values, places.value_sizes)
            values = self.value_scale.divided(values)
        self._hold("keys", keys, None if values_only else trained)
        self._hold("values", values, trained)
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
        if len(prompt_ids) == 1:  # a GPU would wait for the number of distinct ones
            ids = rows = prompt_ids
        else:
            ids, rows = prompt_ids.unique(return_inverse=True)
        keys, values = self.keys[ids], self.values[ids]
        if self.embedding is not None:
            hidden = self.embedding[ids]
            keys = keys if self.key_mlp is None else keys + self.key_mlp(hidden)
            assert self.value_mlp is not None
            values = values + self.value_mlp(hidden)
        keys = keys if self.key_scale is None else self.key_scale(keys, ids)
        values = values if self.value_scale is None else self.value_scale(values, ids)
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
    init: PrefixInit = "context",
    text: str | None = None,
    artifact: str | None = None,
    values_only: bool = False,
    freeze_first: bool = False,
    reparameterize: bool = False,
    middle: int = 512,
    stacks: Stacks = "all",
    layer_scale: bool = False,
    leave_one_out: bool = False,
    token_dropout: float = 0.0,
) -> PrefixTuning:
    """Build prefixes of `length` vectors a layer; `middle` is the width of the reparameterization.

    `stacks` chooses attention layers of an encoder-decoder model: its encoder's, its decoder's own, or the
    decoder's over the encoder's output (cross). With `init=demonstrations`, `length` is the most that
    they may take: see `training.demonstrations`.
    """
    spans = _check(setting, init, placement, leave_one_out, token_dropout)
    places = PrefixLayers.choose(setting.lm.spec, stacks, placement)
    keys, values = initialisers.prefix(setting, places, length, init, text, artifact, keep_first=freeze_first)
    return PrefixTuning(
        places,
        keys,
        values,
        placement,
        values_only=values_only,
        freeze_first=freeze_first,
        reparameterize=reparameterize,
        middle=middle,
        layer_scale=layer_scale,
        hiding=Hiding(keys.shape[1], spans, token_dropout) if spans or token_dropout else None,
    )


def _check(
    setting: Setting, init: PrefixInit, placement: KVPlacement, leave_one_out: bool, token_dropout: float
) -> tuple[tuple[int, int], ...]:
    """Return the columns of the demonstrations that are left out.

    Raises SoftPromptError for options that have no effect together.
    """
    if not 0 <= token_dropout < 1:
        raise SoftPromptError(
            f"method.token_dropout={token_dropout} is not valid",
            why="it is the probability with which a column is hidden: 0 or more, and less than 1",
            fix="method.token_dropout=0.1, or 0 for none",
        )
    if init == "demonstrations" and placement != "before":
        raise SoftPromptError(
            f"init=demonstrations cannot be combined with placement={placement}",
            why="demonstrations come ahead of the input",
            fix="method.placement=before",
        )
    if init == "matched":
        matched_start.check(placement)
    if not leave_one_out:
        return ()
    if init != "demonstrations":
        raise SoftPromptError(
            f"leave_one_out has no effect with init={init}",
            why="it hides the demonstration that a row is, and this prefix starts as none",
            fix="method.init=demonstrations, or leave leave_one_out out",
        )
    if len(setting.demonstration_spans) < 2:
        raise SoftPromptError(
            f"leave_one_out needs two demonstrations or more, not {len(setting.demonstration_spans)}",
            why="the row that is predicted does not see itself, so that nothing is left to see",
            fix="give more demonstrations, or a larger method.length; or method.leave_one_out=false",
        )
    return setting.demonstration_spans
