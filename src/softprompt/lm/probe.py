"""Does injection work on this model? Measured on load, in a fraction of a second, or refused.

A model on which the wrapper has no effect (no call reached it, or no gradient comes back) would
ignore a prefix without a word. The probe runs four tokens through it and looks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache

from ..errors import SoftPromptError
from ..injection import LayerKV, Layers
from .attention import Active, Columns, inject
from .rotary import Turn, candidates, find_turn
from .spec import LayerSpec, ModelSpec

SHIFT = 5  # positions between the two runs that tell how keys encode position


def measure(model) -> tuple[ModelSpec, tuple[Turn | None, ...]]:
    """The model's spec and how each layer turns its keys; raises where injection has no effect."""
    config = model.config.get_text_config(decoder=True)
    with torch.no_grad():
        active, here = _run(model, 0)
        _, there = _run(model, SHIFT)
    layers = _layer_specs(active, here)
    if not any(layers):
        raise SoftPromptError(
            f"model family '{config.model_type}' cannot take a prefix or cached inputs",
            why="none of its attention layers calls transformers' attention interface",
            fix="use a family built on that interface (llama, qwen, mistral, gemma, gpt2, opt, …)",
        )
    _check_effect(model, layers)
    turns, positions = _turns(model, layers, here, there)
    spec = ModelSpec(
        family=config.model_type,
        hidden_size=model.get_input_embeddings().weight.shape[1],
        vocab_size=model.get_input_embeddings().weight.shape[0],
        context=int(getattr(config, "max_position_embeddings", 0) or 2**20),
        layers=layers,
        positions=positions,
    )
    return spec, turns


def _ids(model) -> Tensor:
    vocab = model.get_input_embeddings().weight.shape[0]
    return (torch.arange(1, 5, device=model.device) * 7 % vocab)[None]


def cached_layers(cache: DynamicCache) -> Layers:
    """A cache's keys and values by layer; None for layers that keep none (recurrent ones)."""
    kept = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers]
    return tuple(None if key is None or value is None else LayerKV(key, value) for key, value in kept)


def _run(model, start: int) -> tuple[Active, Layers]:
    ids = _ids(model)
    cache = DynamicCache()
    positions = torch.arange(start, start + ids.shape[1], device=ids.device)[None]
    with inject(Active()) as active:
        model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True)
    assert active is not None
    return active, cached_layers(cache)


def _layer_specs(active: Active, layers: Layers) -> tuple[LayerSpec | None, ...]:
    return tuple(
        None
        if layer is None or index not in active.calls
        else LayerSpec(active.calls[index], layer.key.shape[1], layer.key.shape[3], layer.value.shape[3])
        for index, layer in enumerate(layers)
    )


def _check_effect(model, layers: tuple[LayerSpec | None, ...]) -> None:
    """One random prefix vector a layer must change the output, and gradient must come back to each."""
    dtype = model.get_input_embeddings().weight.dtype
    prefix = [
        None
        if s is None
        else LayerKV(
            torch.randn(1, s.kv_heads, 1, s.head_dim, dtype=dtype, device=model.device, requires_grad=True),
            torch.randn(1, s.kv_heads, 1, s.v_head_dim, dtype=dtype, device=model.device, requires_grad=True),
        )
        for s in layers
    ]
    mask = torch.ones(1, 1, dtype=torch.bool, device=model.device)
    active = Active(columns=(Columns(tuple(prefix), mask),))
    with torch.enable_grad(), inject(active):
        out = model(input_ids=_ids(model), use_cache=False).logits
    leaves = [layer.value for layer in prefix if layer is not None]
    gradients = (
        torch.autograd.grad(out.float().square().mean(), leaves, allow_unused=True)
        if out.requires_grad
        else [None] * len(leaves)
    )
    dead = [i for i, g in enumerate(gradients) if g is None or not g.abs().max() > 0]
    if dead:
        raise SoftPromptError(
            f"a prefix has no effect on layers {dead} of this {model.config.model_type} model",
            why="no gradient came back from them to the prefix",
            fix="use another base model, and report this family",
        )


def _turns(
    model, specs: tuple[LayerSpec | None, ...], here: Layers, there: Layers
) -> tuple[tuple[Turn | None, ...], str]:
    options = candidates(model)
    exact = model.get_input_embeddings().weight.dtype == torch.float32
    # in bf16 hidden states of deep layers differ by rounding; a wrong turn is off by the keys' own size
    tolerance = 1e-3 if exact else 0.3
    first = next((a, b) for spec, a, b in zip(specs, here, there, strict=True) if spec and a and b)
    if _differ(first[0].value, first[1].value) > 1e-3:
        # the first layer's values know their position: the model adds absolute positions to its input
        return tuple(None if spec is None else Turn(None) for spec in specs), "absolute"
    turns = tuple(
        find_turn(options, a.key, b.key, SHIFT, tolerance) if spec and a and b else None
        for spec, a, b in zip(specs, here, there, strict=True)
    )
    if any(turn is None and spec is not None for turn, spec in zip(turns, specs, strict=True)):
        return turns, "unknown"
    rotary = any(turn is not None and turn.frequencies is not None for turn in turns)
    return turns, "rotary" if rotary else "none"


def _differ(a: Tensor, b: Tensor) -> float:
    return ((a - b).float().abs().max() / b.float().abs().max().clamp(min=1e-6)).item()
