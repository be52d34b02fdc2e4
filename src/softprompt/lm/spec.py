"""A method needs to know a model's sizes; nothing here could change the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Stack = Literal["encoder", "decoder", "cross"]
Kind = Literal["decoder", "encoder-decoder", "encoder"]
Batching = Literal["any", "lengths", "one"]
STACKS: tuple[Stack, ...] = ("encoder", "decoder", "cross")


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """Attention of one layer, as the attention function is given it."""

    heads: int  # query heads
    kv_heads: int
    head_dim: int
    v_head_dim: int
    stack: Stack = "decoder"  # whose attention it is; "cross": the decoder's over the encoder's output


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Measured from a few small forward passes (see `lm.probe`), not read from a configuration."""

    family: str  # transformers' model_type
    kind: Kind
    hidden_size: int
    vocab_size: int
    context: int  # positions the model was made for
    depth: int  # layers of any kind, those without attention included
    layers: tuple[LayerSpec, ...]  # its attention layers in the order they run; others take no prefix
    positions: str  # "rotary", "absolute", "relative", "none", or "unknown"
    answer_context: int | None = None  # positions of a decoder that is apart from the encoder
    limits: Mapping[str, str] = field(
        default_factory=dict
    )  # "prefix", "cache", "decoder", "generate": why it is not supported; "length": why rows end
    # rows that may share a batch: any, those of one length, or one (see `lm.probe_neighbours`)
    batching: Batching = "any"

    @property
    def kv_numbers_per_token(self) -> int:
        """Numbers in the keys and values of one token, all layers."""
        return sum(s.kv_heads * (s.head_dim + s.v_head_dim) for s in self.layers)
