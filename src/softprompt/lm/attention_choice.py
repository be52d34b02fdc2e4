"""Choose which attention function the layers of a model call; its configurations name it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

import torch
from torch import nn
from transformers import PreTrainedModel

from ..errors import SoftPromptError, unknown
from .attachment import configurations
from .attention import EAGER, PACKED, SDPA
from .injected import Active, inject
from .library_internals import attention_of, set_attention_of, supports_flash, supports_sdpa
from .model_errors import reason

Attention = Literal["auto", "sdpa", "eager", "flash"]
_PLAIN = {SDPA: "sdpa", EAGER: "eager", PACKED: "sdpa"}  # transformers' own function by the name of ours


def check_choice(choice: str) -> None:
    """Raise SoftPromptError for an attention function that vectors cannot be put into."""
    if choice.startswith("flash_") or choice == "flex_attention":
        raise SoftPromptError(
            f"attn_implementation='{choice}' takes no injected vectors",
            why="a prefix is more columns of keys and values, which its function has no place for",
            fix="use attn_implementation=flash: torch's own FlashAttention-2 kernels, joined with prefixes",
        )
    if choice not in get_args(Attention):
        raise unknown("attn_implementation", choice, get_args(Attention))


def registered_name(model: PreTrainedModel, choice: str) -> str:
    """The name under which ours is registered for a user's choice; "auto" is sdpa where the family has it.

    Raises SoftPromptError where the model cannot run it.
    """
    check_choice(choice)
    supported = {"sdpa": supports_sdpa(model), "flash": supports_sdpa(model) and supports_flash(model)}
    if not supported.get(choice, True):
        raise SoftPromptError(
            f"attn_implementation='{choice}' cannot be combined with a {model.config.model_type} model",
            why=f"transformers has no {'flash' if choice == 'flash' else 'fused'} attention for it",
            fix="use attn_implementation=" + ("sdpa" if supports_sdpa(model) else "eager"),
        )
    if choice == "flash":
        return PACKED
    return SDPA if supports_sdpa(model) and choice != "eager" else EAGER


@torch.no_grad()
def check_flash(model: PreTrainedModel) -> None:
    """Raise SoftPromptError where the model was to run flash kernels, and none of its layers takes them."""
    if attention_of(model.config) != PACKED:
        return
    ids = torch.ones(1, 2, dtype=torch.long, device=model.device)
    arguments = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    try:
        with inject(Active()) as active:
            model(input_ids=ids, **arguments)
    except Exception as error:
        raise _no_flash(model, f"it reads its mask: {reason(error)}") from error
    if active is None or not active.flash_calls:
        why = (
            "the kernels take causal attention to all earlier tokens, without a cap on its scores, with keys "
            "and values of one size, and on a GPU bfloat16 or float16 alone"
        )
        raise _no_flash(model, why)


def _no_flash(model: PreTrainedModel, why: str) -> SoftPromptError:
    return SoftPromptError(
        f"attn_implementation='flash' has no effect on this {model.config.model_type} model in {model.dtype}",
        why=why,
        fix="use attn_implementation=sdpa; or dtype=bfloat16 on a GPU, if the model is in float32",
    )


def set_attention(model: PreTrainedModel, name: str) -> None:
    """Let every layer of the model call the attention that is registered under `name`.

    transformers 5.17 leaves out parts that have a copy of the model's own configuration, as T5's stacks have.
    """
    model.set_attn_implementation(name)
    for part in model.modules():
        if not isinstance(part, PreTrainedModel) or type(part.config) is not type(model.config):
            continue
        if attention_of(part.config) != attention_of(model.config):
            part.set_attn_implementation(name)


def names(modules: Iterable[Any]) -> set[str]:
    """Return the names of the attention functions that these modules call with their current settings."""
    return {str(attention_of(getattr(module, "config", None))) for module in modules}


@contextlib.contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """Let layers that call our attention call transformers' own instead.

    Each configuration is changed separately: the image part of a model may use another attention function.
    """
    before = [(config, attention_of(config)) for config in configurations(model)]
    try:
        for config, name in before:
            if name in _PLAIN:
                set_attention_of(config, _PLAIN[name])
        yield
    finally:
        for config, name in before:  # outer ones first: setting one sets those inside it too
            if name is not None:
                set_attention_of(config, name)
