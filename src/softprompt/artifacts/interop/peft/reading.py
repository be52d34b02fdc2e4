"""PEFT's adapters are converted to our methods by one function for each `peft_type`.

PEFT saves the outputs of its encoders (P-tuning, a projected prefix), not the encoders, so they become plain
tables here as they do there. CPT saves its tokens' embeddings with the learned changes added. Adapters that
PEFT 0.21.2 refuses are refused; a test compares the decisions on many folders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ....errors import SoftPromptError
from ....lm.base import LanguageModel
from ....methods.base import flatten
from . import config, extras
from .adaption import adapted_layers, check_family, gate_name, parse, prompt_name
from .encdec import check_embeddings, is_encdec, prefixed_sites
from .files import Adapter
from .fit import check_geometry, check_task
from .layout import shared_layer, unpack, window_note


@dataclass(frozen=True, slots=True)
class ReadAdapter:
    """The method that was read: its registered name, options, and state with tables of `prompts` rows."""

    method: str
    options: dict[str, Any]
    state: dict[str, Tensor]
    prompts: int = 1
    notes: tuple[str, ...] = ()


def from_adapter(adapter: Adapter, lm: LanguageModel) -> ReadAdapter:
    """Convert an adapter. Raises SoftPromptError for one that has no counterpart here, or does not fit."""
    check_kind(adapter)
    notes = check_task(adapter, lm) + extras.check(adapter, lm)
    result = READERS[adapter.kind](adapter, lm)
    return replace(result, notes=notes + result.notes)


def check_kind(adapter: Adapter) -> None:
    """Raise SoftPromptError for a type that has no counterpart, and for settings that PEFT refuses."""
    if adapter.kind not in READERS:
        raise _other_type(adapter.kind)
    config.check(adapter.config)


def _other_type(kind: str) -> SoftPromptError:
    if kind.upper() in READERS:
        return SoftPromptError(
            f"{config.NAME} says peft_type: {kind}",
            why="PEFT loads no such adapter",
            fix=f"write {kind.upper()} there",
        )
    return SoftPromptError(
        f"an adapter of type {kind} is not a prompt or a prefix",
        why=f"these are: {', '.join(READERS)}",
        fix="use it with PEFT; one that changes weights (such as LORA) can be merged into its base there "
        "(merge_and_unload, then save_pretrained), and the result is a base model here",
    )


def _table(adapter: Adapter, lm: LanguageModel, width: int) -> Tensor:
    """Return its vectors [n, width]. Raises SoftPromptError where their number differs from the config's."""
    vectors = _tensor(adapter, extras.VECTORS, (None, width))
    per_side, sides = config.vectors(adapter.config), 1
    if adapter.kind not in PREFIXES:
        sides = config.copies(adapter.config)
        stated = None if adapter.kind == config.CPT else config.number(adapter.config, "token_dim")
        if stated not in (None, width):
            raise SoftPromptError(
                f"{config.NAME} says token_dim: {stated}",
                why=f"its vectors have {width} numbers, and PEFT does not load them",
                fix=f"write {width} there if both files belong together; else copy the whole folder again",
            )
    rows = vectors.shape[0]
    if rows != per_side * sides or not rows:
        times = f" × {sides} (num_transformer_submodules)" if sides > 1 else ""
        key = "cpt_token_ids" if adapter.kind == config.CPT else "num_virtual_tokens"
        raise SoftPromptError(
            f"the adapter holds {rows} vectors, and {config.NAME} says {per_side}{times}",
            why="there is nothing to import" if not rows else "PEFT does not load such an adapter",
            fix=f"copy the whole folder again; if the vectors are the right ones, set {key} to their number",
        )
    return vectors


def _soft(adapter: Adapter, lm: LanguageModel) -> ReadAdapter:
    check_embeddings(lm)
    vectors, notes = _table(adapter, lm, lm.spec.hidden_size), ()
    sides = config.copies(adapter.config)
    if is_encdec(lm) and sides > 1:
        count = vectors.shape[0]
        vectors = vectors[: count // sides]
        notes = (
            f"the first {len(vectors)} of its {count} vectors are taken: PEFT itself never reads the others",
        )
    elif sides > 1:
        notes = (_masked_note(sides, vectors.shape[0] // sides),)
    return ReadAdapter("prompt-tuning", _before(vectors), {"table": vectors[None]}, notes=notes)


def _masked_note(sides: int, length: int) -> str:
    hidden = length * (sides - 1)
    return (
        f"num_transformer_submodules is {sides}: all {length * sides} vectors come ahead of the input, as "
        f"they do in PEFT; but PEFT widens an attention_mask by {length} alone, and so hides the last "
        f"{hidden} tokens of each row from the others, which nothing hides here"
    )


def _multitask(adapter: Adapter, lm: LanguageModel) -> ReadAdapter:
    check_embeddings(lm)
    shared = _table(adapter, lm, lm.spec.hidden_size)
    if missing := [name for name in extras.FACTORS if name not in adapter.tensors]:
        raise SoftPromptError(
            f"the adapter has no '{missing[0]}'",
            why="without it no task's prompt can be made; PEFT puts random numbers in its place",
            fix="save the adapter again with PEFT's save_pretrained; for the prompt that its tasks share, "
            f"write peft_type: PROMPT_TUNING into its {config.NAME}",
        )
    tasks, rank = (config.number(adapter.config, key) or 1 for key in ("num_tasks", "num_ranks"))
    fix = f"set num_tasks and num_ranks in its {config.NAME} to the sizes of its tensors, or copy it again"
    columns = _tensor(adapter, "prefix_task_cols", (tasks, shared.shape[0], rank), fix)  # [tasks, P, r]
    rows = _tensor(adapter, "prefix_task_rows", (tasks, rank, shared.shape[1]), fix)
    state = {"shared": shared, "columns": columns, "rows": rows}
    sides, options, notes = config.copies(adapter.config), _before(shared), ()
    if sides > 1 and not is_encdec(lm):
        notes = (_masked_note(sides, shared.shape[0] // sides),)
    elif sides > 1:
        if sides > 2 or lm.spec.positions != "relative":
            raise SoftPromptError(
                f"a multitask prompt for the decoder of {lm.spec.family} cannot be imported",
                why="in PEFT it moves the decoder's tokens to other positions; here they stay where they are",
                fix="train it with num_transformer_submodules=1",
            )
        options = {"length": shared.shape[0] // 2, "placement": "both"}
        notes = ("as in PEFT's forward, the decoder reads its half; PEFT's generate leaves it out",)
    return ReadAdapter("multitask-prompt-tuning", options | {"rank": rank}, state, tasks, notes)


def _prefix(adapter: Adapter, lm: LanguageModel) -> ReadAdapter:
    spec = shared_layer(lm)
    depth = len(prefixed_sites(lm))
    entries = (config.number(adapter.config, "num_layers") or depth) if is_encdec(lm) else depth
    sides = config.copies(adapter.config)
    if reason := _unread(lm, sides, entries, depth):
        raise SoftPromptError(
            f"this prefix for {lm.spec.family} cannot be imported",
            why=reason,
            fix=f"train it with num_transformer_submodules={1 + is_encdec(lm)} and without num_layers, as "
            "PEFT does by default",
        )
    flat = _table(adapter, lm, 2 * entries * spec.kv_heads * spec.head_dim)
    notes = check_geometry(adapter, lm, entries) + window_note(lm)
    keys, values = (part.cpu() for part in flatten(unpack(lm, flat)))  # [1, P, D]
    frozen = config.frozen(adapter.config)
    kept = min(frozen, 1)
    state = {"first_keys": keys[:, :kept], "first_values": values[:, :kept]}
    state |= {"keys": keys[:, kept:], "values": values[:, kept:]}
    if frozen > kept:
        notes += (f"{frozen} vectors were frozen in PEFT; training on from here freezes the first alone",)
    options = _before(flat) | {"freeze_first": bool(kept)}
    options |= {"stacks": "decoder"} if is_encdec(lm) else {}
    return ReadAdapter("prefix-tuning", options, state, notes=notes)


def _unread(lm: LanguageModel, sides: int, entries: int, depth: int) -> str:
    """Say why PEFT does not read a prefix as we do; empty where it does."""
    if is_encdec(lm) and sides == 1:
        return (
            "with num_transformer_submodules=1 PEFT gives self-attention and cross-attention one cache, and "
            "each reads the other's keys"
        )
    if sides != 1 + is_encdec(lm):
        return f"PEFT cannot run it with num_transformer_submodules={sides}"
    return f"PEFT cannot run it with {entries} entries for {depth} layers" if entries < depth else ""


def _adaption(adapter: Adapter, lm: LanguageModel) -> ReadAdapter:
    check_family(lm)
    stored = sorted({place[0] for name in adapter.tensors if (place := parse(name))})
    layers, notes = adapted_layers(adapter.config, stored, len(lm.spec.layers))
    shape = (1, config.vectors(adapter.config), lm.spec.hidden_size)
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
    return ReadAdapter("llama-adapter", options, state, notes=notes)


def _before(vectors: Tensor) -> dict[str, Any]:
    """Return the options of vectors [P, …] ahead of every token, where PEFT puts them."""
    return {"length": vectors.shape[0], "placement": "before"}


def _tensor(
    adapter: Adapter,
    name: str,
    shape: tuple[int | None, ...],
    fix: str = "give --model the base model that the adapter was trained on",
) -> Tensor:
    """Return the tensor of that name. Raises SoftPromptError where it has not this shape (None: any size)."""
    tensor = adapter.tensors.get(name)
    sizes = () if tensor is None else tensor.shape
    fits = len(sizes) == len(shape) and all(
        want in (None, size) for want, size in zip(shape, sizes, strict=True)
    )
    if tensor is None or not fits:
        wanted = " × ".join("any" if size is None else str(size) for size in shape)
        raise SoftPromptError(
            f"'{name}' of the adapter does not fit this model",
            why=f"it is {' × '.join(map(str, sizes)) or 'missing'}, and the model takes {wanted}",
            fix=fix,
        )
    return tensor


PREFIXES = ("PREFIX_TUNING", "CARTRIDGE")
READERS: dict[str, Callable[[Adapter, LanguageModel], ReadAdapter]] = {
    "PROMPT_TUNING": _soft,
    "P_TUNING": _soft,
    "CPT": _soft,
    "MULTITASK_PROMPT_TUNING": _multitask,
    "PREFIX_TUNING": _prefix,
    "CARTRIDGE": _prefix,
    "ADAPTION_PROMPT": _adaption,
}
