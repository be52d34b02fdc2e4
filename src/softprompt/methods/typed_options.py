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
    """Trains soft tokens by prompt (Lester et al. 2021).

    Soft tokens: `length` is how many, `placement` where they are ("before" or "after" the input; of an
    encoder-decoder also "decoder" or "both"), and `init` what they start from: "vocab" (tokens drawn from the
    vocabulary), "text" (the tokens of `text`), "labels", "context" (training rows), "random", "nearest", or
    "artifact" (the prompt in the folder `artifact`; `transfer` carries one of another base over: "nearest"
    or "linear").

    A value that a method cannot have raises SoftPromptError where the method is built, by `tune` or `attach`.
    """

    name = "prompt-tuning"


@dataclass(frozen=True, kw_only=True)
class PTuning(_Soft):
    """Trains soft tokens through a small network (Liu et al. 2021, P-tuning).

    `encoder` is the network ("mlp" or "lstm"), `hidden` its width. The network is not saved. The other
    options are those of `PromptTuning`.
    """

    name = "p-tuning"
    encoder: Literal["lstm", "mlp"] = "mlp"
    hidden: int = 128


@dataclass(frozen=True, kw_only=True)
class ResidualPromptTuning(_Soft):
    """Trains soft tokens plus a residual network (Razdaibiedina et al. 2023).

    `bottleneck` is the width of the network, which is not saved. The other options are those of
    `PromptTuning`.
    """

    name = "residual-prompt-tuning"
    length: int = 10
    bottleneck: int = 128


@dataclass(frozen=True, kw_only=True)
class MultitaskPromptTuning(_Soft):
    """Trains a shared prompt times low-rank factors of each prompt (Wang et al. 2023).

    `rank` is the rank of the factors: a prompt has `rank` · (`length` + hidden size) numbers of its own. The
    other options are those of `PromptTuning`.
    """

    name = "multitask-prompt-tuning"
    rank: int = 1


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(MethodOptions):
    """Trains keys and values in every layer (Li and Liang 2021).

    `length` is the number of columns of keys and values in each layer, `placement` their place: "before" or
    "after" the input. `init` is what they start from: "context" (keys and values of training rows), "text"
    (those of `text`), "vocab", "labels", "random", "nearest", "artifact" (the prefix in the folder
    `artifact`), "demonstrations" or "matched" (docs/methods.md). `values_only` leaves keys as they start,
    and `freeze_first` the first column.
    `reparameterize` trains a network of width `middle` that gives keys and values, and is not saved. `stacks`
    names the layers of an encoder-decoder model: "encoder", "decoder", "cross" or "all". `layer_scale` trains
    a scale of each layer too. `leave_one_out` hides a row's own demonstration from it, and `token_dropout` is
    the probability with which a column is hidden in training.

    A value that a method cannot have raises SoftPromptError where the method is built, by `tune` or `attach`.
    """

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
    """Trains a network that reads the input and makes soft tokens of it (ID-SPAM).

    `source` is what the network reads of the input: "embeddings", "hidden" (the states of layer `layer`), or
    "encoder" (a separate model, whose name or folder is `encoder`). `bottleneck` is its width. The other
    options are those of `PromptTuning`.
    """

    name = "generated-prompt"
    source: Source = "embeddings"
    layer: int = 8
    encoder: str = ""
    bottleneck: int = 64


@dataclass(frozen=True, kw_only=True)
class GeneratedPrefix(MethodOptions):
    """Trains a network that reads the input and makes a prefix of it (IDPG).

    `source` is what the network reads of the input: "embeddings", "hidden" (the states of layer `layer`), or
    "encoder" (a separate model, whose name or folder is `encoder`). `bottleneck` is its width. The other
    options are those of `PrefixTuning`.
    """

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
    """Trains gated prefixes in the upper layers (Zhang et al. 2023).

    `top_layers` is how many layers have a prefix, from the last (None: all but two). `length`, `init` and
    `text` are those of `PrefixTuning`.
    """

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
