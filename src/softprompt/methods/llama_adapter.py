"""LLaMA-Adapter adds gated, zero-initialised prefixes in the upper layers (Zhang et al. 2023).

    out = attention(x) + tanh(g) · softmax(q K_Pᵀ) V_P,    K_P, V_P = W_k P, W_v P

P [layers, prefix, hidden] goes through each layer's own frozen projections; the gate g, one for each head,
starts at zero, so training starts as the plain model. Departure: P starts as the layer's input on real text
instead of noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import SoftPromptError
from ..injection import Injection, LayerKV, Prefix
from .base import Features, Setting, SoftPrompt
from .init import Init, start_ids


@final
class LlamaAdapter(SoftPrompt):
    """Train the vectors, and a gate for each head."""

    def __init__(
        self,
        vectors: Float[Tensor, "prompts top_layers prefix hidden"],
        gates: Float[Tensor, "prompts top_layers heads"],
        places: list[int],
        layers: int,
        project: Callable[[int, Tensor], LayerKV],
    ) -> None:
        super().__init__()
        self.vectors, self.gates = nn.Parameter(vectors), nn.Parameter(gates)
        self.places, self.layers, self._project = places, layers, project
        self.num_prompts = vectors.shape[0]

    def forward(self, prompt_ids: Int[Tensor, " batch"], inputs: Features | None = None) -> Injection:
        ids, rows = prompt_ids.unique(return_inverse=True)
        layers: list[LayerKV | None] = [None] * self.layers
        for slot, place in enumerate(self.places):
            projected = [self._project(place, self.vectors[i, slot][None]) for i in ids.tolist()]
            key = torch.cat([kv.key for kv in projected])[rows]
            value = torch.cat([kv.value for kv in projected])[rows]
            layers[place] = LayerKV(key, value, self.gates[ids, slot][rows])
        mask = torch.ones(len(rows), self.vectors.shape[2], dtype=torch.bool, device=rows.device)
        return Injection(adapter=Prefix(tuple(layers), mask))


def build(
    setting: Setting,
    *,
    length: int = 10,
    top_layers: int | None = None,
    init: Init = "vocab",
    text: str | None = None,
) -> LlamaAdapter:
    """Build the method; `top_layers` upper layers are adapted, by default all but two (paper: 30 of 32)."""
    if init in ("random", "artifact", "nearest"):
        raise SoftPromptError(
            f"llama-adapter cannot start from init={init}",
            why="its vectors start as each layer's input on real text",
            fix="use init=vocab, text, labels or context",
        )
    specs = setting.lm.spec.layers
    inputs = [
        setting.lm.attention_inputs(start_ids(setting, i, length, init, text))
        for i in range(len(setting.prompts))
    ]
    places = list(range(len(specs)))[-(top_layers or max(1, len(specs) - 2)) :]
    vectors = torch.stack([torch.stack([row[place] for place in places]) for row in inputs])
    gates = torch.zeros(len(setting.prompts), len(places), specs[places[0]].heads)
    return LlamaAdapter(vectors.float().cpu(), gates, places, len(specs), setting.lm.project_kv)
