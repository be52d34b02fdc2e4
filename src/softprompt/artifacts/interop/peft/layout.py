"""PEFT's layout of a prefix has one row a vector, with the keys and values of all layers side by side.

    flat [P, 2 · L · kv_heads · head_dim], read as [P, 2L, kv_heads, head_dim]:
    row 2l holds the keys of layer l, row 2l + 1 its values

PEFT fills the model's cache with it, so real tokens start at position P and the keys are rotated for that.
Ours have the positions -P … -1 before real tokens at 0: the same keys, moved by P, which is exact where
positions are relative. For encoder-decoder models see `encdec`. This file knows nothing of folders and
methods.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ....errors import SoftPromptError
from ....injection import LayerKV, Layers
from ....lm.base import LanguageModel
from ....lm.spec import LayerSpec
from . import encdec


def pack(lm: LanguageModel, layers: Layers) -> Tensor:
    """Convert layers of [1, kv_heads, P, head_dim] at -P … -1 to PEFT's flat [P, 2 · L · kv_dim].

    For an encoder-decoder model the result is [P, 4 · L · kv_dim], so that each layer reads its own entry;
    the entries between them are not read, and are zero.
    """
    shared_layer(lm)
    sites = encdec.prefixed_sites(lm)
    present = [layer for i in sites if (layer := layers[i]) is not None]
    if len(present) < len(sites):
        raise SoftPromptError(
            f"the prefix is in {len(present)} of {len(sites)} layers",
            why="a prefix of PEFT's has vectors in every layer",
            fix="train one with prefix-tuning",
        )
    if len(present) < sum(layer is not None for layer in layers):
        raise SoftPromptError(
            "PEFT cannot hold a prefix of the encoder or the cross-attention",
            why="it gives one to the decoder's own attention alone",
            fix="train it with placement=before stacks=decoder",
        )
    length = present[0].key.shape[2]
    moved = [layer for layer in lm.move(layers, length) if layer is not None]
    rows = [[tensor[0].transpose(0, 1) for tensor in (layer.key, layer.value)] for layer in moved]
    if encdec.is_encdec(lm):
        rows = [[key, value, torch.zeros_like(key), torch.zeros_like(value)] for key, value in rows]
    return torch.stack([row for layer in rows for row in layer], dim=1).flatten(1)


def unpack(lm: LanguageModel, flat: Tensor) -> Layers:
    """Invert `pack`, for any number of entries that PEFT's layers read."""
    spec = shared_layer(lm)
    length = flat.shape[0]
    rows = flat.to(lm.device).view(length, -1, spec.kv_heads, spec.head_dim)
    rows = rows.permute(1, 2, 0, 3).unsqueeze(1)  # [2N, 1, kv_heads, P, head_dim]
    entries = rows.shape[0] // 2
    layers: list[LayerKV | None] = [None] * len(lm.spec.layers)
    for number, site in enumerate(encdec.prefixed_sites(lm)):
        read = encdec.entry(number, entries) if encdec.is_encdec(lm) else number
        layers[site] = LayerKV(rows[2 * read], rows[2 * read + 1])
    return lm.move(tuple(layers), -length)


def shared_layer(lm: LanguageModel) -> LayerSpec:
    """Return the sizes that all layers share. Raises SoftPromptError where PEFT's prefixes do not fit."""
    limits = (
        []
        if encdec.is_encdec(lm)
        else [lm.spec.limits[w] for w in ("prefix", "cache") if w in lm.spec.limits]
    )
    if limits:
        raise SoftPromptError(
            f"a prefix for {lm.spec.family} cannot be converted between the libraries",
            why=f"PEFT puts it into a cache of keys and values, and {limits[0]}",
            fix="use a soft prompt (prompt-tuning, placement=before)",
        )
    if lm.spec.positions not in ("rotary", "relative", "none"):
        shifted = "after a prefix of P vectors the input starts at position P in PEFT and at 0 here"
        absolute = lm.spec.positions == "absolute"
        raise SoftPromptError(
            f"a prefix for {lm.spec.family} cannot be converted between the libraries",
            why=f"{shifted}, and the model adds a learned vector for each position"
            if absolute
            else "how the model rotates its keys by position was not recognised",
            fix="use a soft prompt (prompt-tuning, placement=before): its positions are the same in both",
        )
    first, *others = (lm.spec.layers[i] for i in encdec.prefixed_sites(lm))
    if any(spec != first for spec in others) or first.head_dim != first.v_head_dim:
        raise SoftPromptError(
            f"the layers of {lm.spec.family} have keys and values of different sizes",
            why="PEFT writes one size for all",
            fix="use a soft prompt (prompt-tuning, placement=before)",
        )
    return first


def window_note(lm: LanguageModel) -> tuple[str, ...]:
    """Return notes on models with a sliding window, and on those that rotate by the length of a row."""
    window = getattr(lm.model.config.get_text_config(decoder=True), "sliding_window", None)
    notes: tuple[str, ...] = ()
    if window:
        notes += (
            f"in PEFT a prefix leaves the sliding window of {window} tokens with the text; "
            "here it is seen at any distance, so longer inputs get other answers",
        )
    if "length" in lm.spec.limits:
        notes += (
            f"in PEFT a prefix takes positions: where it and a row have over {lm.spec.context} together, "
            "PEFT rotates all keys otherwise, and gets other answers",
        )
    return notes
