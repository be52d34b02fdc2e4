"""The registry of methods has one line for each published method, whose code is one file.

Other packages add methods by entry points of the group `softprompt.methods` (docs/own-method.md).
`build(name, setting, options)` makes one. Its options are the keyword arguments of the file's `build`; any
other name is an error that names the nearest one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .._system.plugins import Registry
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
from .base import Features, Reads, Setting, SoftPrompt
from .method import Method, method_of
from .option_names import OptionNames
from .typed_options import CONFIGS, MethodOptions, class_of

METHODS: Registry[Method] = Registry(
    "method",
    "softprompt.methods",
    {
        "prompt-tuning": Method(prompt_tuning.build, 3e-2, "soft tokens by prompt id (Lester 2021)"),
        "p-tuning": Method(p_tuning.build, 3e-3, "soft tokens through an LSTM or MLP (Liu 2021)"),
        "residual-prompt-tuning": Method(
            residual_prompt_tuning.build, 1e-2, "soft tokens plus a residual MLP (2023)"
        ),
        "multitask-prompt-tuning": Method(
            multitask_prompt_tuning.build, 3e-2, "shared prompt × low-rank factors (2023)"
        ),
        "prefix-tuning": Method(
            prefix_tuning.build, 1e-2, "keys and values in every layer (Li & Liang 2021)"
        ),
        "generated-prompt": Method(generated.build_prompt, 3e-3, "soft tokens made from the input (ID-SPAM)"),
        "generated-prefix": Method(generated.build_prefix, 3e-3, "a prefix made from the input (IDPG)"),
        "llama-adapter": Method(llama_adapter.build, 1e-2, "gated prefixes in the upper layers (Zhang 2023)"),
        "none": Method(none.build, 0.0, "the plain model, or base=lora / base=full alone"),
    },
    method_of,
)


def find(name: Any) -> Method:
    """Return the method of that name.

    Raises SoftPromptError for an unknown one, with the nearest name, for one whose package is broken, and for
    what is no name.
    """
    if not isinstance(name, str):
        raise _no_method(name)
    if name not in METHODS:
        error = unknown("method", name, METHODS)
        raise SoftPromptError(error.what, error.why, "install the package that has it, if it is not misspelt")
    return METHODS[name]


def _no_method(given: Any) -> SoftPromptError:
    """Return the error for what is neither a method's name, nor its options, nor a module."""
    is_class = isinstance(given, type)
    return SoftPromptError(
        f"method={given.__name__ if is_class else repr(given)} is no method",
        why="it is a class, not an object with options"
        if is_class
        else f"it is of the type {type(given).__name__}",
        fix=f"write {given.__name__}(…) with its options"
        if is_class and issubclass(given, MethodOptions)
        else 'give a name ("prefix-tuning"), options (softprompt.PrefixTuning(length=8)), or a module',
    )


def register(name: str, target: Any) -> None:
    """Add a method of your own to the registry, for this process only: in a notebook, or in a test.

    `target`: a subclass of `SoftPrompt` with `build` and `lr`, a module with both, or a `Method`. A class may
    be registered again under its name, as a notebook's cell that runs twice does. Other processes do not see
    it: workers of a comparison, the command line and the server need an entry point (docs/own-method.md).
    Raises SoftPromptError where the name is taken, and for a target of another form.
    """
    METHODS.register(name, target)


def name_of(module: type[SoftPrompt]) -> str | None:
    """Return the name of the method that builds modules of this class; None where none does."""
    return next((name for name, method in METHODS.items() if method.makes() is module), None)


def options(name: Any, **chosen: Any) -> MethodOptions:
    """Return a method with options, as `softprompt.PrefixTuning(length=32)` is: for any name.

    Raises SoftPromptError for an unknown name or option, and for a wrong value.
    """
    method = find(name)
    check_options(name, chosen)
    kind = CONFIGS.get(name) if METHODS.origin(name) is None else None
    return (kind or class_of(name, method.options(), method.hints()))(**chosen)


def option_names() -> OptionNames:
    """Return the options of all methods (for `key=value` overrides), without importing other packages yet."""
    return OptionNames(METHODS.values)


def build(name: str, setting: Setting, options: Mapping[str, Any] | None = None) -> SoftPrompt:
    """Build a method with initial vectors. Raises SoftPromptError for an unknown or ill-typed option."""
    method = find(name)
    chosen = check_options(name, options or {})
    with torch.random.fork_rng(devices=[]):  # reparameterizers draw from the global generator
        torch.manual_seed(setting.seed)
        return method.build(setting, **chosen)


def options_to_load(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options to build a method with whose values come from a file: any start will do."""
    if not find(name).has_init:
        return dict(options)
    start = ("text", "artifact", "transfer", "leave_one_out", "token_dropout")  # these are of training alone
    return {key: value for key, value in options.items() if key not in start} | {"init": "vocab"}


def soft_tokens(name: str, options: Mapping[str, Any]) -> tuple[int, int, int]:
    """Count the positions that a method's vectors take: in the input's sequence, in a decoder, at one place.

    A composition is no method of the registry: it records how many soft tokens it has.
    """
    if name not in METHODS and "operation" in options:
        # A composition that was made before the number was recorded: all of its vectors may be soft tokens.
        length = int(options.get("soft_tokens", options["length"]))
        return length, 0, length
    method, known = find(name), find(name).options()
    if method.soft_tokens is not None:
        counted = method.soft_tokens({key: p.default for key, p in known.items()} | dict(options))
        return counted if isinstance(counted, tuple) else (counted, 0, counted)
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
    hints = method.hints()
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
    "name_of",
    "option_names",
    "options",
    "options_to_load",
    "register",
    "soft_tokens",
]
