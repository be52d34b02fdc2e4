"""Check on load whether injection works on this model: a measurement of a fraction of a second.

A model on which the wrapper has no effect (no call reached it, or no gradient comes back) would ignore a
prefix silently. The probe runs a few tokens through the model and looks. What does not work is listed in
`ModelSpec.limits` with the reason, and an error where somebody asks for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import SoftPromptError
from ..injection import LayerKV, Layers
from .attachment import attach
from .injected import Active, Columns, Site, Visit, inject
from .model_errors import OURS, place, reason
from .pooling import output_of
from .rotary import Rotation, candidates, find_rotation
from .spec import LayerSpec, ModelSpec, Stack

SHIFT = 5  # positions between the two runs that tell how keys encode position
INPUT, TARGET = 4, 3  # tokens on an encoder's side, and a decoder's: their difference tells stacks apart


def measure(model, embed: Callable[[Tensor], Tensor]) -> tuple[ModelSpec, tuple[Rotation | None, ...]]:
    """Measure the model's spec and how each layer rotates its keys.

    Raises SoftPromptError where not even a soft prompt works.
    """
    config = model.config.get_text_config(decoder=True)
    if getattr(model.get_input_embeddings(), "weight", None) is None:
        raise _no_soft_tokens(
            model, "it has no table of token embeddings, beside which a soft token would be"
        )
    with torch.no_grad():
        visits, tokens = _run(model, 0)
    layers = _number(model, visits)
    limits: dict[str, str] = {}
    if layers:
        limits |= _effect(model, visits)
    else:
        reason = "no layer of it calls transformers' attention interface"
        limits |= {"prefix": reason, "cache": reason}
    rotations, positions = _rotations(model, visits) if layers else ((), "unknown")
    _check_soft_tokens(model, embed, tokens)
    embeddings = model.get_input_embeddings().weight
    spec = ModelSpec(
        family=config.model_type,
        kind="encoder-decoder" if model.config.is_encoder_decoder else "decoder",
        hidden_size=embeddings.shape[1],
        vocab_size=embeddings.shape[0],
        context=int(getattr(config, "max_position_embeddings", 0) or 2**20),
        depth=int(getattr(config, "num_hidden_layers", len(layers))),
        layers=layers,
        positions=positions,
        limits=limits,
    )
    return spec, rotations


def _number(model, visits: list[Visit]) -> tuple[LayerSpec, ...]:
    """Number the calls of the attention modules, in the order in which they run.

    A module that calls several times with the same keys (values in parts) has a number for each call.
    """
    sites = attach(model).sites
    sites.clear()  # of an earlier load of the same model
    calls: dict[Any, list[Visit]] = {}
    for visit in visits:
        seen = calls.setdefault(visit.module, [])
        if not seen or (visit.kv.key.shape == seen[0].kv.key.shape and visit.kv.key.equal(seen[0].kv.key)):
            seen.append(visit)
    specs, bias = [], {}
    for module, seen in calls.items():
        spec = _layer_spec(model, seen[0])
        if getattr(module, "has_relative_attention_bias", False):
            bias[spec.stack] = module
        sites[module] = Site(len(specs), len(seen), bias.get(spec.stack))
        specs += [_layer_spec(model, visit) for visit in seen]
    return tuple(specs)


def by_site(model, visits: list[Visit]) -> dict[int, LayerKV]:
    """Return the keys and values of each site; of one that runs several times, those of its last run."""
    counter, sites = Active(), attach(model).sites
    return {counter.next_call(sites[visit.module]): visit.kv for visit in visits}


def _layer_spec(model, visit: Visit) -> LayerSpec:
    stack: Stack = "decoder"
    if model.config.is_encoder_decoder:
        stack = "encoder" if visit.queries == INPUT else "decoder" if visit.keys == TARGET else "cross"
    elif not getattr(visit.module, "is_causal", True):
        stack = "encoder"
    key, value = visit.kv.key, visit.kv.value
    return LayerSpec(visit.heads, key.shape[1], key.shape[3], value.shape[3], stack)


def _arguments(model, start: int) -> dict[str, Any]:
    vocab = model.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(1, 1 + INPUT, device=model.device) * 7 % vocab)[None]
    arguments: dict[str, Any] = {"input_ids": ids}
    accepted = accepted_arguments(model)
    if model.config.is_encoder_decoder:
        arguments["decoder_input_ids"] = ids[:, :TARGET]
    elif "position_ids" in accepted:
        arguments["position_ids"] = torch.arange(start, start + INPUT, device=ids.device)[None]
    if "use_cache" in accepted:
        arguments["use_cache"] = False
    return arguments


def named_arguments(module) -> frozenset[str]:
    """Return the names of the arguments that the module's forward declares."""
    return frozenset(inspect.signature(module.forward).parameters)


def accepted_arguments(model) -> frozenset[str]:
    """Return the names that the model's forward knows; `use_cache` also where it only passes it on."""
    parameters = inspect.signature(model.forward).parameters
    passes_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return frozenset(parameters) | ({"use_cache"} if passes_on else set())


def _run(model, start: int) -> tuple[list[Visit], Tensor]:
    """Return the calls of the attention function, and the logits."""
    with inject(Active(visits=[])) as active:
        logits = output_of(model(**_arguments(model, start)))
    assert active is not None and active.visits is not None
    return active.visits, logits.float()


def _check_soft_tokens(model, embed: Callable[[Tensor], Tensor], tokens: Tensor) -> None:
    """Check that embeddings get the logits of their tokens, and that gradient comes back to them."""
    arguments = _arguments(model, 0)
    soft = embed(arguments.pop("input_ids")).detach().requires_grad_(True)
    try:
        with torch.enable_grad():
            # a copy, as any batch is: some models change it in place, which torch forbids in a leaf
            logits = output_of(model(inputs_embeds=soft.clone(), **arguments)).float()
            last = logits[:, -1] if logits.dim() == 3 else logits
            score, gradient = last.square().mean(), None
            if score.requires_grad:
                (gradient,) = torch.autograd.grad(score, soft, allow_unused=True)
    except Exception as error:
        if (where := place(error)).startswith(OURS):
            raise
        why = f"run with a gradient on embeddings in place of tokens, it ends with {reason(error)} ({where})"
        raise _no_soft_tokens(model, why) from error
    if tokens.isnan().any():
        raise _no_soft_tokens(model, "its answers are not numbers (NaN), without anything put in")
    scale = tokens.abs().max().clamp(min=1.0)
    if (logits.detach() - tokens).abs().max() / scale > (1e-3 if soft.dtype == torch.float32 else 0.1):
        with torch.no_grad():
            again = _run(model, 0)[1]
        same = (again - tokens).abs().max() <= 1e-3 * scale
        unlike = "its answers to embeddings are not those to the tokens they belong to"
        raise _no_soft_tokens(model, unlike if same else "the same tokens, run twice, get two answers")
    if gradient is None or not gradient.abs().max() > 0:
        raise _no_soft_tokens(model, "no gradient comes back to its input")
    if logits.dim() == 3 and not gradient[:, :-1].abs().max() > 0:
        why = (
            "its answer at a token does not depend on the other tokens (measured), so neither on soft tokens"
        )
        raise _no_soft_tokens(model, why)


def _no_soft_tokens(model, why: str) -> SoftPromptError:
    return SoftPromptError(
        f"model family '{model.config.model_type}' cannot take a soft prompt",
        why=why,
        fix="load it without quantization, or with another one; torchao's int8 weights work"
        if getattr(model, "is_quantized", False)
        else "use another base model, and report this family",
    )


def _effect(model, visits: list[Visit]) -> Mapping[str, str]:
    """Return the limits where a prefix has no effect: gradient must come back to every layer."""
    kept = by_site(model, visits)
    # the layer's own first key and value: a random key may get no weight at all where scores are not scaled
    prefix = [
        kept[site].map(lambda t: t[:1, :, :1].detach().clone().requires_grad_(True)) for site in sorted(kept)
    ]
    mask = torch.ones(1, 1, dtype=torch.bool, device=model.device)
    active = Active(columns=(Columns(tuple(prefix), mask),))
    with torch.enable_grad(), inject(active, attach(model).sites):
        loss = output_of(model(**_arguments(model, 0))).float().square().mean()
    leaves = [layer.value for layer in prefix]
    gradients = (
        torch.autograd.grad(loss, leaves, allow_unused=True) if loss.requires_grad else [None] * len(leaves)
    )
    dead = [i for i, g in enumerate(gradients) if g is None or not g.abs().max() > 0]
    if not dead:
        return {}
    reason = f"no gradient came back to a prefix from its attention layers {dead}"
    return {"prefix": reason, "cache": reason}


def _rotations(model, visits: list[Visit]) -> tuple[tuple[Rotation | None, ...], str]:
    """Find how each site rotates its keys, from the same tokens at two places."""
    here = by_site(model, visits)
    count = len(here)
    options = candidates(model)
    if any(site.bias is not None for site in attach(model).sites.values()):
        return (Rotation(None),) * count, "relative"
    if "position_ids" not in _arguments(model, 0):
        # positions it counts itself: in its input (bart), or not at all
        known = len(options) == 1
        return ((Rotation(None) if known else None,) * count), "absolute" if known else "unknown"
    with torch.no_grad():
        there = by_site(model, _run(model, SHIFT)[0])
    exact = model.get_input_embeddings().weight.dtype == torch.float32
    # in bf16 hidden states of deep layers differ by rounding; a wrong rotation is off by the keys' own size
    tolerance = 1e-3 if exact else 0.3
    if _differ(here[0].value, there[0].value) > 1e-3:
        # the first layer's values know their position: the model adds absolute positions to its input
        return (Rotation(None),) * count, "absolute"
    rotations = tuple(
        find_rotation(options, here[i].key, there[i].key, SHIFT, tolerance) for i in range(count)
    )
    if any(rotation is None for rotation in rotations):
        return rotations, "unknown"
    rotary = any(rotation is not None and rotation.frequencies is not None for rotation in rotations)
    return rotations, "rotary" if rotary else "none"


def _differ(a: Tensor, b: Tensor) -> float:
    return ((a - b).float().abs().max() / b.float().abs().max().clamp(min=1e-6)).item()


def recorded(active: Active, count: int) -> Layers:
    """Return the recorded keys and values by site."""
    assert active.record is not None
    return tuple(active.record.get(site) for site in range(count))
