"""PEFT's ADAPTION_PROMPT is our llama-adapter on some models; tensor names, and which models those are.

    PEFT:  W_o heads(x) + W_o (g · softmax(q K_Pᵀ) V_P)
    ours:  W_o (heads(x) + tanh(g) · softmax(q K_Pᵀ) V_P)

They are the same where W_o has no bias. PEFT also has one gate a layer instead of one a head, and uses it
without tanh; it knows three families, and leaves W_o out for GPT-2.
"""

from __future__ import annotations

import re

from ....errors import SoftPromptError
from ....lm.base import LanguageModel
from ....lm.capture import attention_modules
from . import config

FAMILIES = ("llama", "mistral")
_KEY = re.compile(r"(?:^|\.)layers\.(\d+)\.self_attn\.adaption_(prompt|gate)$")


def prompt_name(layer: int) -> str:
    """Return PEFT's name of a layer's vectors [1, P, H]."""
    return f"base_model.model.model.layers.{layer}.self_attn.adaption_prompt"


def gate_name(layer: int) -> str:
    """Return PEFT's name of a layer's gate [1]."""
    return f"base_model.model.model.layers.{layer}.self_attn.adaption_gate"


def parse(name: str) -> tuple[int, str] | None:
    """Return the layer, and "prompt" or "gate"; None for another tensor."""
    match = _KEY.search(name)
    return (int(match[1]), match[2]) if match else None


def adapted_layers(
    settings: config.Config, stored: list[int], depth: int
) -> tuple[list[int], tuple[str, ...]]:
    """Return the layers whose vectors PEFT reads (the upper ones), and notes on the others.

    Raises SoftPromptError where PEFT reads none of them, or reads them otherwise.
    """
    if not stored or stored != list(range(depth - len(stored), depth)):
        raise SoftPromptError(
            f"the adapter has vectors for layers {stored} of a model with {depth}",
            why="llama-adapter takes the upper layers",
            fix="give --model the base model that the adapter was trained on",
        )
    count, target = config.number(settings, "adapter_layers"), settings.get("target_modules")
    if count is None or count > depth or target not in (None, "self_attn"):
        raise SoftPromptError(
            f"{config.NAME} says adapter_layers: {count}, target_modules: {target}",
            why=f"PEFT does not load it on a model of {depth} layers, whose attention is called self_attn",
            fix=f"set adapter_layers to {len(stored)} and target_modules to null there",
        )
    if count >= len(stored):
        return stored, ()  # gates that are not stored are 0
    left = stored[:-count]
    return stored[-count:], (
        f"the vectors of layers {', '.join(map(str, left))} are left out: {config.NAME} says adapter_layers: "
        f"{count}, and PEFT leaves them out too",
    )


def check_family(lm: LanguageModel) -> None:
    """Raise SoftPromptError where PEFT computes something else than we do, or nothing."""
    modules = attention_modules(lm.model)
    sizes = [spec for spec in lm.spec.layers if spec is not None]
    reason = ""
    if lm.spec.family not in FAMILIES:
        reason = f"PEFT's ADAPTION_PROMPT computes the same as llama-adapter on {' and '.join(FAMILIES)} only"
    elif any(getattr(module.o_proj, "bias", None) is not None for module in modules.values()):
        reason = "its output projections have biases, which PEFT adds twice"
    elif any(spec.heads * spec.head_dim != lm.spec.hidden_size for spec in sizes):
        reason = "its heads are not hidden size / heads wide, which PEFT assumes"
    if reason:
        raise SoftPromptError(
            f"a llama-adapter for '{lm.name}' ({lm.spec.family}) cannot be converted between the libraries",
            why=reason,
            fix="use prompt-tuning or prefix-tuning with placement=before",
        )
