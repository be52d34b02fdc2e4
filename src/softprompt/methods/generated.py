"""Prompts and prefixes are generated from the input by a small prefix model (IDPG, ID-SPAM, IDP).

    z = softmax(Q_P (W_k f)ᵀ) (W_v f)     P learned queries attend over the input's features f
    prompt(x) = static[id] + scale ∘ W_up gelu(z)

The generated part is added to a learned static part and W_up starts at zero, so training starts as
the static method. Attention over the input's tokens beats mean pooling by several points (ID-SPAM).
Features are the frozen model's token embeddings, its hidden states at a layer, or the outputs of a
separate pretrained encoder; this file does not know how they are computed.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import SoftPromptError
from ..injection import Injection
from . import init as initialisers
from .base import (
    Features,
    KVPlacement,
    Placement,
    PrefixLayers,
    Reads,
    Setting,
    SoftPrompt,
    Stacks,
    kv_injection,
    soft_injection,
    soft_length,
)
from .init import Init
from .transfer import Transfer

Source = Literal["embeddings", "hidden", "encoder"]


class AttentionPooling(nn.Module):
    """Attention of learned queries, one for each vector of the prompt, over the input's features."""

    def __init__(self, size: int, length: int, bottleneck: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.queries = nn.Parameter(torch.randn(length, bottleneck))
        self.key = nn.Linear(size, bottleneck, bias=False)  # a bias would shift all scores of a query alike
        self.value = nn.Linear(size, bottleneck)

    def forward(self, inputs: Features) -> Float[Tensor, "batch prefix bottleneck"]:
        features = self.norm(inputs.values.float())
        keys, values = self.key(features), self.value(features)  # [batch, inputs, bottleneck]
        scores = torch.einsum("pd,bmd->bpm", self.queries, keys) * self.queries.shape[1] ** -0.5
        scores = scores.masked_fill(~inputs.mask[:, None, :], torch.finfo(scores.dtype).min)
        return nn.functional.gelu(scores.softmax(-1) @ values)


@final
class GeneratedPrompt(SoftPrompt):
    """Adds the pooled input to `table` [prompts, prefix, hidden]: soft tokens."""

    def __init__(
        self,
        table: Float[Tensor, "prompts prefix hidden"],
        placement: Placement,
        reads: Reads,
        size: int,
        bottleneck: int,
    ) -> None:
        super().__init__()
        self.reads = reads
        self.placement: Placement = placement
        self.table = nn.Parameter(table)
        self.num_prompts = table.shape[0]
        self.pooling = AttentionPooling(size, table.shape[1], bottleneck)
        self.up = _zero_linear(bottleneck, table.shape[2])
        self.register_buffer("scale", table.std().reshape(1))

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        generated = self.scale * self.up(self.pooling(_required(inputs)))
        return soft_injection(self.table[prompt_ids] + generated, self.placement)

    def static(self, prompt_ids: Int[Tensor, " batch"]) -> Injection:
        return soft_injection(self.table[prompt_ids], self.placement)


@final
class GeneratedPrefix(SoftPrompt):
    """Adds the pooled input to a static table: keys and values."""

    def __init__(
        self,
        places: PrefixLayers,
        keys: Float[Tensor, "prompts prefix keys"],
        values: Float[Tensor, "prompts prefix values"],
        placement: KVPlacement,
        reads: Reads,
        size: int,
        bottleneck: int,
    ) -> None:
        super().__init__()
        self.places, self.reads = places, reads
        self.placement: KVPlacement = placement
        self.keys, self.values = nn.Parameter(keys), nn.Parameter(values)
        self.num_prompts = keys.shape[0]
        self.pooling = AttentionPooling(size, keys.shape[1], bottleneck)
        self.up_keys = _zero_linear(bottleneck, keys.shape[2])
        self.up_values = _zero_linear(bottleneck, values.shape[2])
        # each layer's own size, so that one learning rate suits them all
        self.register_buffer("key_scale", _layer_scale(keys, places.key_sizes))
        self.register_buffer("value_scale", _layer_scale(values, places.value_sizes))

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        pooled = self.pooling(_required(inputs))
        keys = self.keys[prompt_ids] + self.key_scale * self.up_keys(pooled)
        values = self.values[prompt_ids] + self.value_scale * self.up_values(pooled)
        return kv_injection(self.places.unflatten(keys, values), self.placement)

    def static(self, prompt_ids: Int[Tensor, " batch"]) -> Injection:
        layers = self.places.unflatten(self.keys[prompt_ids], self.values[prompt_ids])
        return kv_injection(layers, self.placement)


def build_prompt(
    setting: Setting,
    *,
    length: int = 16,
    placement: Placement = "after",
    init: Init = "vocab",
    text: str | None = None,
    artifact: str | None = None,
    transfer: Transfer | None = None,
    source: Source = "embeddings",
    layer: int = 8,
    encoder: str = "",
    bottleneck: int = 64,
) -> GeneratedPrompt:
    """Build the method.

    `source` is read by the prefix model: embeddings, hidden (states after `layer` layers), or an `encoder`.
    """
    reads = _reads(setting, source, layer, encoder)
    table = initialisers.soft_tokens(setting, soft_length(length, placement), init, text, artifact, transfer)
    return GeneratedPrompt(table, placement, reads, _size(setting, reads), bottleneck)


def build_prefix(
    setting: Setting,
    *,
    length: int = 16,
    placement: KVPlacement = "after",
    init: Init = "context",
    text: str | None = None,
    artifact: str | None = None,
    source: Source = "embeddings",
    layer: int = 8,
    encoder: str = "",
    bottleneck: int = 64,
    stacks: Stacks = "all",
) -> GeneratedPrefix:
    """Build the method with keys and values in every layer; for the options see `build_prompt`."""
    reads = _reads(setting, source, layer, encoder)
    places = PrefixLayers.choose(setting.lm.spec, stacks, placement)
    keys, values = initialisers.prefix(setting, places, length, init, text, artifact)
    return GeneratedPrefix(places, keys, values, placement, reads, _size(setting, reads), bottleneck)


def _reads(setting: Setting, source: Source, layer: int, encoder: str) -> Reads:
    if source == "encoder" and not encoder:
        raise SoftPromptError("source=encoder needs a model", fix="add method.encoder=NAME_OR_FOLDER")
    layers = setting.lm.spec.depth
    if source == "hidden" and not 0 <= layer <= layers:
        raise SoftPromptError(
            f"layer={layer} is outside this model", why=f"it has {layers} layers", fix=f"choose 0 … {layers}"
        )
    return Reads(source, layer if source == "hidden" else 0, encoder if source == "encoder" else "")


def _size(setting: Setting, reads: Reads) -> int:
    if setting.feature_size is not None:
        return setting.feature_size(reads)
    return setting.lm.spec.hidden_size


def _required(inputs: Features | None) -> Features:
    if inputs is None:
        raise SoftPromptError(
            "a generated prompt needs the input",
            why="it is made from it",
            fix="call the method with the rows' features",
        )
    return inputs


def _zero_linear(size_in: int, size_out: int) -> nn.Linear:
    linear = nn.Linear(size_in, size_out)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _layer_scale(
    flat: Float[Tensor, "prompts prefix numbers"], sizes: list[int]
) -> Float[Tensor, " numbers"]:
    """Compute the standard deviation of each layer, repeated for each of its numbers."""
    return torch.cat([part.std().expand(part.shape[-1]) for part in flat.split(sizes, dim=-1)]).clone()
