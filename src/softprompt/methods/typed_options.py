"""Methods as configuration objects, with options that an editor completes and a type checker checks.

    softprompt.tune(lm, softprompt.PrefixTuning(length=32), rows)

Each class has the keyword arguments of its method's `build`, with the same types and defaults.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, ClassVar, Literal

from .base import KVPlacement, Placement, Stacks
from .generated import Source
from .init import Init, PrefixInit
from .transfer import Transfer


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """Names a method and its options. An option that is left at its default is not recorded."""

    name: ClassVar[str]

    def to_recipe(self) -> dict[str, Any]:
        """Return the method section of a recipe."""
        return {"name": self.name, **self.options()}

    def options(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        every = ((option, getattr(self, option.name)) for option in fields(self))
        return {option.name: value for option, value in every if value != option.default}


@dataclass(frozen=True, kw_only=True)
class _Soft(MethodOptions):
    """Options that every method of soft tokens has."""

    length: int = 16
    placement: Placement = "after"
    init: Init = "vocab"
    text: str | None = None
    artifact: str | None = None
    transfer: Transfer | None = None


@dataclass(frozen=True, kw_only=True)
class PromptTuning(_Soft):
    """Trains soft tokens by prompt (Lester et al. 2021)."""

    name = "prompt-tuning"


@dataclass(frozen=True, kw_only=True)
class PTuning(_Soft):
    """Trains soft tokens through a small network (Liu et al. 2021, P-tuning)."""

    name = "p-tuning"
    encoder: Literal["lstm", "mlp"] = "mlp"
    hidden: int = 128


@dataclass(frozen=True, kw_only=True)
class ResidualPromptTuning(_Soft):
    """Trains soft tokens plus a residual network (Razdaibiedina et al. 2023)."""

    name = "residual-prompt-tuning"
    length: int = 10
    bottleneck: int = 128


@dataclass(frozen=True, kw_only=True)
class MultitaskPromptTuning(_Soft):
    """Trains a shared prompt times low-rank factors of each prompt (Wang et al. 2023)."""

    name = "multitask-prompt-tuning"
    rank: int = 1


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(MethodOptions):
    """Trains keys and values in every layer (Li and Liang 2021)."""

    name = "prefix-tuning"
    length: int = 16
    placement: KVPlacement = "after"
    init: PrefixInit = "context"
    text: str | None = None
    artifact: str | None = None
    values_only: bool = False
    freeze_first: bool = False
    reparameterize: bool = False
    middle: int = 512
    stacks: Stacks = "all"
    layer_scale: bool = False
    leave_one_out: bool = False
    token_dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class GeneratedPrompt(_Soft):
    """Trains a network that reads the input and makes soft tokens of it (ID-SPAM)."""

    name = "generated-prompt"
    source: Source = "embeddings"
    layer: int = 8
    encoder: str = ""
    bottleneck: int = 64


@dataclass(frozen=True, kw_only=True)
class GeneratedPrefix(MethodOptions):
    """Trains a network that reads the input and makes a prefix of it (IDPG)."""

    name = "generated-prefix"
    length: int = 16
    placement: KVPlacement = "after"
    init: Init = "context"
    text: str | None = None
    artifact: str | None = None
    source: Source = "embeddings"
    layer: int = 8
    encoder: str = ""
    bottleneck: int = 64
    stacks: Stacks = "all"


@dataclass(frozen=True, kw_only=True)
class LlamaAdapter(MethodOptions):
    """Trains gated prefixes in the upper layers (Zhang et al. 2023)."""

    name = "llama-adapter"
    length: int = 10
    top_layers: int | None = None
    init: Init = "vocab"
    text: str | None = None


CONFIGS: dict[str, type[MethodOptions]] = {
    config.name: config
    for config in (
        PromptTuning,
        PTuning,
        ResidualPromptTuning,
        MultitaskPromptTuning,
        PrefixTuning,
        GeneratedPrompt,
        GeneratedPrefix,
        LlamaAdapter,
    )
}


def class_of(
    name: str, parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]
) -> type[MethodOptions]:
    """Make the class of a method that has none here, from the options of its `build`."""
    typed = [(option, hints[option], field(default=p.default)) for option, p in parameters.items()]
    label = "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", name))
    return make_dataclass(
        label if label.isidentifier() else "OwnMethod",
        typed,
        bases=(MethodOptions,),
        namespace={"name": name},
        frozen=True,
        kw_only=True,
    )


def written_out(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Replace method objects in a recipe that is given as a mapping, also in what it compares."""
    recipe = dict(recipe)
    if isinstance(recipe.get("method"), MethodOptions):
        recipe["method"] = recipe["method"].to_recipe()
    compared = recipe.get("compare")
    if not isinstance(compared, Mapping) or not compared.get("methods"):
        return recipe
    named = compared["methods"]
    if not isinstance(named, Mapping):
        if not any(isinstance(method, MethodOptions) for method in named):
            return recipe
        named = {method.name if isinstance(method, MethodOptions) else method: method for method in named}
    methods = {
        name: {"method": method.name, **method.options()}
        if isinstance(method, MethodOptions)
        else (method if isinstance(method, Mapping) else {})
        for name, method in named.items()
    }
    return {**recipe, "compare": {**compared, "methods": methods}}
