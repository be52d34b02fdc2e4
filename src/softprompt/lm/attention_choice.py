"""Choose which attention function the layers of a model call; its configurations name it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

from torch import nn
from transformers import PreTrainedModel

from ..errors import SoftPromptError, unknown
from .attachment import configurations
from .attention import EAGER, SDPA
from .library_internals import attention_of, set_attention_of, supports_sdpa

Attention = Literal["auto", "sdpa", "eager"]
_PLAIN = {SDPA: "sdpa", EAGER: "eager"}  # transformers' own function by the name of ours


def check_choice(choice: str) -> None:
    """Raise SoftPromptError for an attention function that vectors cannot be put into."""
    if choice.startswith("flash"):
        raise SoftPromptError(
            f"attn_implementation='{choice}' takes no injected vectors",
            why="flash kernels take no mask, and rows with prefixes of different lengths need one",
            fix="use attn_implementation=sdpa: torch picks its fastest kernel that takes a mask",
        )
    if choice not in get_args(Attention):
        raise unknown("attn_implementation", choice, get_args(Attention))


def registered_name(model: PreTrainedModel, choice: str) -> str:
    """The name under which ours is registered for a user's choice; "auto" is sdpa where the family has it.

    Raises SoftPromptError where the model cannot run it, and for flash attention.
    """
    check_choice(choice)
    if choice == "sdpa" and not supports_sdpa(model):
        raise SoftPromptError(
            f"attn_implementation='sdpa' cannot be combined with a {model.config.model_type} model",
            why="transformers has no fused attention for it",
            fix="use attn_implementation=eager",
        )
    return SDPA if supports_sdpa(model) and choice != "eager" else EAGER


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
