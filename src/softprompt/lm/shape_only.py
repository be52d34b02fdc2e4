"""A substitute for a base model that gives vectors of the right shapes, and no numbers: no pass through it.

A method that is built only to be filled from a file asks its base for a start that nobody will see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from ..injection import LayerKV, Layers
from .base import LanguageModel


@final
class Shapes:
    """As `methods.base.BaseModel` asks."""

    def __init__(self, lm: LanguageModel) -> None:
        self.spec, self.device = lm.spec, lm.device
        self._lm = lm

    def text_ids(self, text: str) -> list[int]:
        return self._lm.text_ids(text)

    def embed(self, ids: Tensor) -> Tensor:
        return self._lm.embed(ids)

    def kv_of(self, ids: Sequence[int]) -> Layers:
        return tuple(self._zeros(layer, len(ids)) for layer in range(len(self.spec.layers)))

    def kv_like(self, ids: Sequence[int]) -> Layers:
        return self.kv_of(ids)

    def project_kv(self, layer: int, hidden: Tensor) -> LayerKV:
        return self._lm.project_kv(layer, hidden)  # asked at every use, not for a start

    def attention_inputs(self, ids: Sequence[int]) -> list[Tensor]:
        return self._lm.attention_inputs(ids)  # their size is in no spec: ALBERT's is not that of embeddings

    def _zeros(self, layer: int, length: int) -> LayerKV:
        sizes = self.spec.layers[layer]

        def zeros(size: int) -> Tensor:
            return torch.zeros(1, sizes.kv_heads, length, size, device=self.device)

        return LayerKV(zeros(sizes.head_dim), zeros(sizes.v_head_dim))
