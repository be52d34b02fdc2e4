"""A prefix has a bias for each column here: one more number in its keys.

While `attention` is in place, queries have one more number too, with which a key's last number is added to
the logit as it is; the keys of rows have 0 there. So training and scoring take biases without knowing of
them. What is changed is transformers' registry of attention functions, and it is put back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from transformers import AttentionInterface

from softprompt.injection import Layers
from softprompt.lm.attention import EAGER, SDPA, attend_eager, attend_sdpa
from softprompt.methods.base import PrefixLayers

HIDDEN = -1e4  # the bias of a column that no query sees


@contextlib.contextmanager
def attention() -> Iterator[None]:
    """Give each query and each key one more number, in all models that are loaded."""
    functions = {SDPA: attend_sdpa, EAGER: attend_eager}
    for name, function in functions.items():
        AttentionInterface.register(name, _wider(function))
    try:
        yield
    finally:
        for name, function in functions.items():
            AttentionInterface.register(name, function)


def _wider(function: Callable) -> Callable:
    def attend(module, query, key, value, attention_mask, **options):
        scaling = options.pop("scaling", None) or query.shape[-1] ** -0.5
        query = torch.cat([query, torch.full_like(query[..., :1], 1 / scaling)], dim=-1)
        key = torch.cat([key, torch.zeros_like(key[..., :1])], dim=-1)
        return function(module, query, key, value, attention_mask, scaling=scaling, **options)

    return attend


def places_of(layers: Layers, places: PrefixLayers) -> PrefixLayers:
    """Return the places of a prefix with keys as wide as those of `layers`."""
    pairs = zip(layers, places.layers, strict=True)
    return PrefixLayers(
        tuple(None if kv is None else replace(spec, head_dim=kv.key.shape[-1]) for kv, spec in pairs)
    )
