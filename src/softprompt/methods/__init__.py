"""The registry of methods has one line for each published method, whose code is one file.

`build(name, setting, options)` makes one. Its options are the keyword arguments of the file's `build`; any
other name is an error that names the nearest one.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import SoftPromptError, unknown
from . import (
    generated,
    llama_adapter,
    multitask_prompt_tuning,
    none,
    p_tuning,
    prefix_tuning,
    prompt_tuning,
    residual_prompt_tuning,
)
from .base import Features, Placement, Reads, Setting, SoftPrompt


@dataclass(frozen=True, slots=True)
class Method:
    """An entry says how to build a method, at which learning rate (AdamW) it learns well, and what it is."""

    build: Callable[..., SoftPrompt]
    lr: float
    summary: str

    def options(self) -> dict[str, inspect.Parameter]:
        """Return the options by name, with defaults."""
        parameters = inspect.signature(self.build).parameters
        return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}

    @property
    def is_soft(self) -> bool:
        """Return True where it makes soft tokens, which take positions in the sequence."""
        return typing.get_type_hints(self.build).get("placement") == Placement


METHODS: dict[str, Method] = {
    "prompt-tuning": Method(prompt_tuning.build, 3e-2, "soft tokens by prompt id (Lester 2021)"),
    "p-tuning": Method(p_tuning.build, 3e-3, "soft tokens through an LSTM or MLP (Liu 2021)"),
    "residual-prompt-tuning": Method(
        residual_prompt_tuning.build, 1e-2, "soft tokens plus a residual MLP (2023)"
    ),
    "multitask-prompt-tuning": Method(
        multitask_prompt_tuning.build, 3e-2, "shared prompt × low-rank factors (2023)"
    ),
    "prefix-tuning": Method(prefix_tuning.build, 1e-2, "keys and values in every layer (Li & Liang 2021)"),
    "generated-prompt": Method(generated.build_prompt, 3e-3, "soft tokens made from the input (ID-SPAM)"),
    "generated-prefix": Method(generated.build_prefix, 3e-3, "a prefix made from the input (IDPG)"),
    "llama-adapter": Method(llama_adapter.build, 1e-2, "gated prefixes in the upper layers (Zhang 2023)"),
    "none": Method(none.build, 0.0, "the plain model, or base=lora / base=full alone"),
}


def find(name: str) -> Method:
    """Return the method of that name. Raises SoftPromptError, with the nearest name, for an unknown one."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def option_names() -> set[str]:
    """List every option of every method (for `key=value` overrides)."""
    return {option for method in METHODS.values() for option in method.options()}


def build(name: str, setting: Setting, options: Mapping[str, Any] | None = None) -> SoftPrompt:
    """Build a method with initial vectors. Raises SoftPromptError for an unknown or ill-typed option."""
    method = find(name)
    chosen = check_options(name, options or {})
    with torch.random.fork_rng(devices=[]):  # reparameterizers draw from the global generator
        torch.manual_seed(setting.seed)
        return method.build(setting, **chosen)


def soft_tokens(name: str, options: Mapping[str, Any]) -> tuple[int, int, int]:
    """Count the positions that a method's vectors take: in the input's sequence, in a decoder, at one place.

    A composition is no method of the registry: it records how many soft tokens it has.
    """
    if name not in METHODS and "operation" in options:
        # A composition that was made before the number was recorded: all of its vectors may be soft tokens.
        length = int(options.get("soft_tokens", options["length"]))
        return length, 0, length
    method, known = find(name), find(name).options()
    if not method.is_soft:
        return 0, 0, 0
    length = int(options.get("length", known["length"].default))
    placement = options.get("placement", known["placement"].default)
    return length * (placement != "decoder"), length * (placement in ("decoder", "both")), length


def check_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options to the types of the method.

    Raises SoftPromptError for unknown names and wrong values.
    """
    import pydantic

    method = find(name)
    known = method.options()
    hints = typing.get_type_hints(method.build)
    checked: dict[str, Any] = {}
    for key, value in options.items():
        if key not in known:
            raise unknown(f"option of {name}", key, known)
        try:
            checked[key] = pydantic.TypeAdapter(hints[key]).validate_python(value)
        except pydantic.ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise SoftPromptError(
                f"method.{key}={value!r} is not valid for {name}",
                why=reason,
                fix=f"leave it out for the default ({known[key].default!r})",
            ) from None
        if key in _POSITIVE and isinstance(value, int) and value < 1:
            raise SoftPromptError(
                f"method.{key}={value} is not valid", why="it counts things", fix="use 1 or more"
            )
    return checked


_POSITIVE = {"length", "rank", "bottleneck", "hidden", "middle", "top_layers"}

__all__ = [
    "METHODS",
    "Features",
    "Method",
    "Reads",
    "Setting",
    "SoftPrompt",
    "build",
    "check_options",
    "find",
    "soft_tokens",
]
