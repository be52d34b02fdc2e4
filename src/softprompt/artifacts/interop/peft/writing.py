"""Our methods are converted to PEFT's adapters by one function for each class of method.

SoftPromptError is raised with the reason where PEFT cannot hold a prompt. Networks that only training uses
(reparameterizers) are left out where the caller asks for the materialised prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ....errors import SoftPromptError
from ....injection import Injection, Layers, SoftTokens
from ....lm.base import LanguageModel
from ....methods.base import SoftPrompt
from ....methods.llama_adapter import LlamaAdapter
from ....methods.materialised import Materialised
from ....methods.multitask_prompt_tuning import MultitaskPromptTuning
from ....methods.prefix_tuning import PrefixTuning
from ....methods.prompt_tuning import PromptTuning
from .adaption import check_family, gate_name, prompt_name
from .encdec import TASKS, check_embeddings, is_encdec, prefixed_sites
from .files import Adapter
from .layout import pack, window_note

Chosen = Mapping[str, int]  # the prompts to write: their names, and their numbers in the method's table


@torch.no_grad()
def to_adapter(method: SoftPrompt, lm: LanguageModel, chosen: Chosen) -> Adapter:
    """Convert the chosen prompts of `method` to an adapter that gives the same logits in PEFT."""
    check_channels(method, next(iter(chosen.values())), lm)
    return _write(method, lm, chosen)


def check_channels(method: SoftPrompt, index: int, lm: LanguageModel) -> None:
    """Raise SoftPromptError unless all injected vectors are fixed and ahead of the input."""
    if method.reads is not None:
        raise SoftPromptError(
            "PEFT cannot hold a prompt that is generated from the input",
            why="its adapters are tables of fixed vectors",
            fix="train prompt-tuning or prefix-tuning with placement=before",
        )
    check_places(_injection(method, index, lm))


def check_places(injection: Injection) -> None:
    """Raise SoftPromptError unless all injected vectors are in one place, ahead of the input."""
    channels = sorted(injection.channels())
    if not channels:
        raise SoftPromptError("there is nothing to export", why="it holds no vectors", fix="train a prompt")
    if late := [name for name in channels if name in ("after", "kv_after")]:
        raise SoftPromptError(
            f"PEFT cannot place vectors after the input ({', '.join(late)})",
            why="it puts them ahead of every token",
            fix="train it with placement=before",
        )
    if "decoder" in channels:
        raise SoftPromptError(
            "PEFT cannot give soft tokens to the decoder",
            why="its generate, or all of it, leaves the decoder's half of a prompt out",
            fix="train it with placement=before",
        )
    if len(channels) > 1:
        raise SoftPromptError(
            f"PEFT cannot hold {' and '.join(channels)} in one adapter",
            why="an adapter is a soft prompt or a prefix",
            fix="train prompt-tuning or prefix-tuning alone",
        )


@functools.singledispatch
def _write(method: SoftPrompt, lm: LanguageModel, chosen: Chosen) -> Adapter:
    raise _needs_materialising()


@_write.register
def _(method: PromptTuning, lm: LanguageModel, chosen: Chosen) -> Adapter:
    return _soft(lm, method.table[_only(chosen)])


@_write.register
def _(method: MultitaskPromptTuning, lm: LanguageModel, chosen: Chosen) -> Adapter:
    # PEFT keeps the same three tables, and takes a `task_ids` [B] with every call
    check_embeddings(lm)
    tasks = list(chosen.values())
    config = _config(lm, "MULTITASK_PROMPT_TUNING", method.shared.shape[0])
    sizes = {"num_tasks": len(tasks), "num_ranks": method.rows.shape[1], "prompt_tuning_init": "RANDOM"}
    tensors = {"prompt_embeddings": method.shared}
    tensors |= {"prefix_task_cols": method.columns[tasks], "prefix_task_rows": method.rows[tasks]}
    order = ", ".join(f"{number} is {name}" for number, name in enumerate(chosen))
    return Adapter(config | sizes, tensors, (f"PEFT needs task_ids with every call: {order}",))


@_write.register
def _(method: PrefixTuning, lm: LanguageModel, chosen: Chosen) -> Adapter:
    if method.embedding is not None:
        raise _needs_materialising()
    prefix = _injection(method, _only(chosen), lm).kv_before
    assert prefix is not None
    return _prefix(lm, prefix.layers, frozen=method.first_values.shape[1])


@_write.register
def _(method: Materialised, lm: LanguageModel, chosen: Chosen) -> Adapter:
    ((channel, part),) = method.prompts[_only(chosen)].channels().items()
    if isinstance(part, SoftTokens):
        return _soft(lm, part.vectors[0])
    if channel == "adapter":
        raise SoftPromptError(
            "llama-adapter cannot be exported materialised",
            why="PEFT keeps its vectors as they were before the layer's own projections",
            fix="leave out --materialise",
        )
    return _prefix(lm, part.layers)


@_write.register
def _(method: LlamaAdapter, lm: LanguageModel, chosen: Chosen) -> Adapter:
    check_family(lm)
    index = _only(chosen)
    gates = method.gates[index].tanh()  # [top layers, heads]; PEFT's gate is used as it is
    if (gates - gates[:, :1]).abs().max() > 1e-6:
        raise SoftPromptError(
            "PEFT cannot hold the gates of this llama-adapter",
            why="it has one gate a layer, and here the heads of a layer learned different ones",
            fix="train prefix-tuning with placement=before for use in PEFT",
        )
    tensors: dict[str, Tensor] = {}
    for slot, layer in enumerate(method.places):
        tensors[prompt_name(layer)] = method.vectors[index, slot][None]
        tensors[gate_name(layer)] = gates[slot, :1]
    sizes = {"adapter_len": method.vectors.shape[2], "adapter_layers": len(method.places)}
    return Adapter(_base("ADAPTION_PROMPT") | sizes | {"target_modules": "self_attn"}, tensors)


def _soft(lm: LanguageModel, vectors: Tensor) -> Adapter:
    check_embeddings(lm)
    config = _config(lm, "PROMPT_TUNING", vectors.shape[0]) | {"prompt_tuning_init": "RANDOM"}
    return Adapter(config, {"prompt_embeddings": vectors})


def _prefix(lm: LanguageModel, layers: Layers, frozen: int = 0) -> Adapter:
    """Write a prefix; PEFT calls one with a frozen start a cartridge."""
    flat = pack(lm, layers)
    heads = next(spec.kv_heads for spec in lm.spec.layers if spec is not None)
    config = _config(lm, "CARTRIDGE" if frozen else "PREFIX_TUNING", flat.shape[0])
    entries = len(prefixed_sites(lm)) * (2 if is_encdec(lm) else 1)
    config |= {"token_dim": flat.shape[1] // (2 * entries), "num_attention_heads": heads}
    config |= {"num_layers": entries, "num_transformer_submodules": 2} if is_encdec(lm) else {}
    config |= {"num_frozen_tokens": frozen} if frozen else {"prefix_projection": False}
    return Adapter(config, {"prompt_embeddings": flat}, window_note(lm))


def _config(lm: LanguageModel, kind: str, length: int) -> dict[str, Any]:
    """Return the settings that PEFT's prompt-learning configs share."""
    return _base(kind) | {
        "task_type": TASKS[lm.spec.kind],
        "num_virtual_tokens": length,
        # PEFT's default for an encoder-decoder is 2, which stores a half that is never read
        "num_transformer_submodules": 1,
        "num_layers": len(prefixed_sites(lm)),
        "token_dim": lm.spec.hidden_size,
        "num_attention_heads": next(spec.heads for spec in lm.spec.layers if spec is not None),
    }


def _base(kind: str) -> dict[str, Any]:
    return {"peft_type": kind, "task_type": "CAUSAL_LM", "inference_mode": True}


def _injection(method: SoftPrompt, index: int, lm: LanguageModel) -> Injection:
    return method(torch.tensor([index], device=lm.device))


def _only(chosen: Chosen) -> int:
    if len(chosen) > 1:
        raise SoftPromptError(
            f"there are {len(chosen)} prompts: {', '.join(chosen)}",
            why="such an adapter in PEFT holds one",
            fix=f"add --prompt {next(iter(chosen))}, and export each to its own folder",
        )
    return next(iter(chosen.values()))


def _needs_materialising() -> SoftPromptError:
    return SoftPromptError(
        "PEFT cannot hold the network that makes these vectors",
        why="the vectors alone give the same answers, but training could not be resumed from them",
        fix="add --materialise to export the vectors alone",
    )
