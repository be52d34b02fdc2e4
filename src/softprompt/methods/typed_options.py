"""Methods as configuration objects, with options that an editor completes and a type checker checks.

    softprompt.tune(lm, softprompt.PrefixTuning(length=32), rows)

Each class has the keyword arguments of its method's `build`, with the same types and defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from ..errors import unknown
from .base import KVPlacement, Placement, Stacks
from .generated import Source
from .init import Init
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
        every = ((field, getattr(self, field.name)) for field in fields(self))
        return {field.name: value for field, value in every if value != field.default}


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
    init: Init = "context"
    text: str | None = None
    artifact: str | None = None
    values_only: bool = False
    freeze_first: bool = False
    reparameterize: bool = False
    middle: int = 512
    stacks: Stacks = "all"


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


def by_name(name: str) -> MethodOptions:
    """Return the method of that name with its default options. Raises SoftPromptError for an unknown one."""
    if name not in CONFIGS:
        raise unknown("method", name, CONFIGS)
    return CONFIGS[name]()


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
