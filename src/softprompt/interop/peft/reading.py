"""PEFT's adapters as methods of ours: one function a `peft_type`.

PEFT saves what its encoders (P-tuning, a projected prefix) put out, not the encoders, so those
become plain tables here as they do there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import SoftPromptError
from ...lm.base import LanguageModel
from ...methods.base import flatten
from . import encdec
from .adaption import check_family, gate_name, parse, prompt_name
from .encdec import check_embeddings, is_encdec, prefixed_sites, submodules
from .files import Adapter
from .layout import shared_layer, unpack, window_note


@dataclass(frozen=True, slots=True)
class Found:
    """A method of ours by its registered name, its options, and its state: tables of `prompts` rows."""

    method: str
    options: dict[str, Any]
    state: dict[str, Tensor]
    prompts: int = 1
    notes: tuple[str, ...] = ()


def from_adapter(adapter: Adapter, lm: LanguageModel) -> Found:
    """What the adapter is here. Raises SoftPromptError for one that has no counterpart, or does not fit."""
    if adapter.kind not in READERS:
        raise SoftPromptError(
            f"an adapter of type {adapter.kind} is not a prompt or a prefix",
            why=f"these are: {', '.join(READERS)}",
            fix="use it with PEFT",
        )
    task, meant = adapter.config.get("task_type"), encdec.TASKS.get(lm.spec.kind)
    if meant is None or task not in (None, meant) or submodules(adapter.config, lm) > 1 + is_encdec(lm):
        raise SoftPromptError(
            f"an adapter for {task} cannot be imported",
            why=f"it was trained for something else than this model ({lm.spec.family}) can do in PEFT",
            fix=f"import one with task_type {meant or ' or '.join(encdec.TASKS.values())}",
        )
    reader, expected = READERS[adapter.kind], ("prompt_embeddings", "prefix_task_cols", "prefix_task_rows")
    if extra := [name for name in adapter.tensors if name not in expected and parse(name) is None]:
        raise SoftPromptError(
            f"the adapter holds more than its vectors ('{extra[0]}')",
            why="where weights of the model were trained too, the vectors alone would answer differently",
            fix="train it without modules_to_save and without new tokens",
        )
    return reader(adapter, lm)


def _soft(adapter: Adapter, lm: LanguageModel) -> Found:
    check_embeddings(lm)
    stored = _tensor(adapter, "prompt_embeddings", (None, lm.spec.hidden_size))
    parts = submodules(adapter.config, lm)
    vectors = stored[: stored.shape[0] // parts]
    unread = f"the second half of its {stored.shape[0]} vectors is left out: PEFT itself never reads it"
    notes = () if parts == 1 else (unread,)
    return Found("prompt-tuning", _before(vectors), {"table": vectors[None]}, notes=notes)


def _multitask(adapter: Adapter, lm: LanguageModel) -> Found:
    check_embeddings(lm)
    shared = _tensor(adapter, "prompt_embeddings", (None, lm.spec.hidden_size))
    columns = _tensor(adapter, "prefix_task_cols", (None, shared.shape[0], None))  # [tasks, P, r]
    tasks, _, rank = columns.shape
    rows = _tensor(adapter, "prefix_task_rows", (tasks, rank, shared.shape[1]))
    state = {"shared": shared, "columns": columns, "rows": rows}
    options, notes = _before(shared), ()
    if submodules(adapter.config, lm) == 2:
        if lm.spec.positions != "relative":
            raise SoftPromptError(
                f"a multitask prompt for the decoder of {lm.spec.family} cannot be imported",
                why="in PEFT it moves the decoder's tokens to other positions; here they stay where they are",
                fix="train it with num_transformer_submodules=1",
            )
        options = {"length": shared.shape[0] // 2, "placement": "both"}
        notes = ("as in PEFT's forward, the decoder reads its half; PEFT's generate leaves it out",)
    return Found("multitask-prompt-tuning", options | {"rank": rank}, state, tasks, notes)


def _prefix(adapter: Adapter, lm: LanguageModel) -> Found:
    spec = shared_layer(lm)
    depth = len(prefixed_sites(lm))
    entries = int(adapter.config.get("num_layers") or depth) if is_encdec(lm) else depth
    if is_encdec(lm) and (submodules(adapter.config, lm) != 2 or entries < depth):
        raise SoftPromptError(
            f"this prefix for {lm.spec.family} cannot be imported",
            why="PEFT itself fails on it: it takes num_transformer_submodules=2, and entries for each layer",
            fix="train it with PEFT's own numbers",
        )
    width = 2 * entries * spec.kv_heads * spec.head_dim
    flat = _tensor(adapter, "prompt_embeddings", (None, width))
    _check_geometry(adapter, lm, entries)
    keys, values = (part.cpu() for part in flatten(unpack(lm, flat)))  # [1, P, D]
    frozen = int(adapter.config.get("num_frozen_tokens") or 0)  # of a cartridge
    kept = min(frozen, 1)
    state = {"first_keys": keys[:, :kept], "first_values": values[:, :kept]}
    state |= {"keys": keys[:, kept:], "values": values[:, kept:]}
    notes = window_note(lm)
    if frozen > kept:
        notes += (f"{frozen} vectors were frozen in PEFT; training on from here freezes the first alone",)
    options = _before(flat) | {"freeze_first": bool(kept)}
    options |= {"stacks": "decoder"} if is_encdec(lm) else {}
    return Found("prefix-tuning", options, state, notes=notes)


def _check_geometry(adapter: Adapter, lm: LanguageModel, entries: int) -> None:
    """Raises where the adapter's layers and heads are of another size, although its rows are as wide."""
    spec, depth = shared_layer(lm), adapter.config.get("num_layers")
    heads, dim = adapter.config.get("num_attention_heads"), adapter.config.get("token_dim")
    found = [
        f"{what} {given}, the model {own}"
        for what, given, own in (
            ("layers", depth, entries),
            ("heads", heads, spec.kv_heads),
            ("numbers a head", dim and heads and dim // heads, spec.head_dim),
        )
        if given is not None and int(given) != own
    ]
    if found:
        raise SoftPromptError(
            "this prefix was trained on a model of another shape",
            why=f"its adapter_config.json has {'; '.join(found)}",
            fix="give --model the base model that the adapter was trained on",
        )


def _adaption(adapter: Adapter, lm: LanguageModel) -> Found:
    check_family(lm)
    layers = sorted({place[0] for name in adapter.tensors if (place := parse(name))})
    depth = len(lm.spec.layers)
    if not layers or layers != list(range(depth - len(layers), depth)):
        raise SoftPromptError(
            f"the adapter has vectors for layers {layers} of a model with {depth}",
            why="llama-adapter takes the upper layers",
            fix="give --model the base model that the adapter was trained on",
        )
    shape = (1, None, lm.spec.hidden_size)
    vectors = torch.cat([_tensor(adapter, prompt_name(layer), shape) for layer in layers])
    gates = torch.cat([_tensor(adapter, gate_name(layer), (1,)) for layer in layers])
    if gates.abs().max() >= 1:
        raise SoftPromptError(
            f"a gate of the adapter is {gates.abs().max():.3g}",
            why="llama-adapter's gates are a tanh, which stays below 1",
            fix="use it with PEFT",
        )
    heads = lm.spec.layers[layers[0]].heads  # type: ignore[union-attr]
    options = {"length": vectors.shape[1], "top_layers": len(layers)}
    state = {"vectors": vectors[None], "gates": gates.atanh()[None, :, None].repeat(1, 1, heads)}
    return Found("llama-adapter", options, state)


def _before(vectors: Tensor) -> dict[str, Any]:
    """PEFT puts vectors [P, …] ahead of every token."""
    return {"length": vectors.shape[0], "placement": "before"}


def _tensor(adapter: Adapter, name: str, shape: tuple[int | None, ...]) -> Tensor:
    """The tensor of that name, whose sizes (None: any) are those of the model."""
    found = adapter.tensors.get(name)
    sizes = () if found is None else found.shape
    fits = len(sizes) == len(shape) and all(
        want in (None, size) for want, size in zip(shape, sizes, strict=True)
    )
    if found is None or not fits:
        wanted = " × ".join("any" if size is None else str(size) for size in shape)
        raise SoftPromptError(
            f"'{name}' of the adapter does not fit this model",
            why=f"it is {' × '.join(map(str, sizes)) or 'missing'}, and the model takes {wanted}",
            fix="give --model the base model that the adapter was trained on",
        )
    return found


READERS: dict[str, Callable[[Adapter, LanguageModel], Found]] = {
    "PROMPT_TUNING": _soft,
    "P_TUNING": _soft,
    "MULTITASK_PROMPT_TUNING": _multitask,
    "PREFIX_TUNING": _prefix,
    "CARTRIDGE": _prefix,
    "ADAPTION_PROMPT": _adaption,
}
