"""A prefix as PEFT lays it out: one row a vector, all layers' keys and values side by side.

    flat [P, 2 · L · kv_heads · head_dim], read as [P, 2L, kv_heads, head_dim]:
    row 2l holds the keys of layer l, row 2l + 1 its values

PEFT seeds the model's cache with it, so real tokens start at position P and the keys are turned for
that. Ours stand at -P … -1 before real tokens at 0: the same keys, moved by P, which is exact where
positions are relative. This file knows nothing of folders and methods.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import SoftPromptError
from ...injection import LayerKV, Layers
from ...lm.base import LanguageModel
from ...lm.spec import LayerSpec


def pack(lm: LanguageModel, layers: Layers) -> Tensor:
    """Layers of [1, kv_heads, P, head_dim] at -P … -1 as PEFT's flat [P, 2 · L · kv_dim]."""
    shared_layer(lm)
    present = [layer for layer in layers if layer is not None]
    if len(present) < len(layers):
        raise SoftPromptError(
            f"the prefix is in {len(present)} of {len(layers)} layers",
            why="a prefix of PEFT's has vectors in every layer",
            fix="train one with prefix-tuning",
        )
    length = present[0].key.shape[2]
    moved = [layer for layer in lm.move(layers, length) if layer is not None]
    rows = [tensor[0].transpose(0, 1) for layer in moved for tensor in (layer.key, layer.value)]
    return torch.stack(rows, dim=1).flatten(1)  # of [P, 2L, kv_heads, head_dim]


def unpack(lm: LanguageModel, flat: Tensor) -> Layers:
    """The inverse of `pack`."""
    spec = shared_layer(lm)
    length, depth = flat.shape[0], len(lm.spec.layers)
    rows = flat.to(lm.device).view(length, 2 * depth, spec.kv_heads, spec.head_dim)
    rows = rows.permute(1, 2, 0, 3).unsqueeze(1)  # [2L, 1, kv_heads, P, head_dim]
    layers = tuple(LayerKV(rows[2 * i], rows[2 * i + 1]) for i in range(depth))
    return lm.move(layers, -length)


def shared_layer(lm: LanguageModel) -> LayerSpec:
    """The sizes that all layers share. Raises SoftPromptError where PEFT's prefixes do not fit the model."""
    if lm.spec.positions not in ("rotary", "none"):
        shifted = "after a prefix of P vectors the input starts at position P in PEFT and at 0 here"
        absolute = lm.spec.positions == "absolute"
        raise SoftPromptError(
            f"a prefix for {lm.spec.family} does not go from one library to the other",
            why=f"{shifted}, and the model adds a vector of its own for each position"
            if absolute
            else "how the model turns its keys by position was not recognised",
            fix="use a soft prompt (prompt-tuning, placement=before): its positions are the same in both",
        )
    sizes = set(lm.spec.layers)
    first = next(spec for spec in lm.spec.layers if spec is not None)
    if len(sizes) > 1 or first.head_dim != first.v_head_dim:
        raise SoftPromptError(
            f"the layers of {lm.spec.family} have keys and values of different sizes",
            why="PEFT writes one size for all",
            fix="use a soft prompt (prompt-tuning, placement=before)",
        )
    return first


def window_note(lm: LanguageModel) -> tuple[str, ...]:
    """What differs where attention looks back a limited way."""
    window = getattr(lm.model.config.get_text_config(decoder=True), "sliding_window", None)
    if not window:
        return ()
    return (
        f"in PEFT a prefix leaves the sliding window of {window} tokens with the text; "
        "here it is seen at any distance, so longer inputs get other answers",
    )
