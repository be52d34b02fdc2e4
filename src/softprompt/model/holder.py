"""A model with a prompt holds more than its weights; here is what, and when its vectors are put in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..lm import attachment
from ..lm.base import LanguageModel

NAME = attachment.PROMPT
MODULE = "soft_prompt"  # the submodule that is trained
#: What the trainers of transformers and TRL change in a model's configuration.
TRAINERS_CHANGE = ("use_cache", "bos_token_id", "eos_token_id", "pad_token_id")

_ALONE: ContextVar[bool] = ContextVar("softprompt_alone", default=False)


@dataclass
class Holder:
    """Holds how the base is run, the names of the table, and what an artifact records."""

    lm: LanguageModel
    prompts: tuple[str, ...]
    own_class: type  # the model's class before
    base: Mapping[str, str]  # fingerprints of the base, before a trainer changes its configuration
    method: str
    options: Mapping[str, Any]
    template: Mapping[str, Any] = field(default_factory=dict)
    splits: bool = False  # whether the vectors depend on where an input ends
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the configuration, see TRAINERS_CHANGE
    weights: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # of the base, see `state_of`
    frozen: Any = None  # a FrozenBase, once the prompt is on the model


def state_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return numbers that change with the base's weights: each parameter's version and place in memory."""
    named = model.named_parameters()
    return {name: (p._version, p.data_ptr()) for name, p in named if not name.startswith(f"{MODULE}.")}


def holder_of(model: nn.Module) -> Holder:
    """Return the model's holder."""
    return vars(model)[NAME]


def is_alone() -> bool:
    """True while calls of a model are run without vectors: `plain`, or a call inside a call."""
    return _ALONE.get()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Run calls inside without vectors."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


@contextlib.contextmanager
def without_prompt(model: nn.Module) -> Iterator[None]:
    """Take the trained submodule off inside, so that the base's parameters are the base's alone."""
    module = model._modules.pop(MODULE)
    try:
        yield
    finally:
        model._modules[MODULE] = module
