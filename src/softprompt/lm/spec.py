"""What a method needs to know of a model: sizes, and nothing that could change it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """Attention of one layer."""

    heads: int  # query heads
    kv_heads: int
    head_dim: int
    v_head_dim: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Measured from one small forward pass (see `lm.probe`), not read from a configuration."""

    family: str  # transformers' model_type
    hidden_size: int
    vocab_size: int
    context: int  # positions the model was made for
    layers: tuple[LayerSpec | None, ...]  # None where a layer has no attention
    positions: str  # "rotary", "absolute", "none", or "unknown"

    @property
    def kv_numbers_per_token(self) -> int:
        """Numbers in the keys and values of one token, all layers."""
        return sum(s.kv_heads * (s.head_dim + s.v_head_dim) for s in self.layers if s is not None)
