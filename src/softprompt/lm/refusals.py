"""The errors for what a model cannot do, with the reasons that were measured on load (`ModelSpec.limits`)."""

from __future__ import annotations

from typing import Any

from ..errors import SoftPromptError
from .spec import ModelSpec

_MEANING = {  # a limit: what does not work, and what does instead
    "prefix": ("take a prefix", "use a soft prompt (prompt-tuning, p-tuning, …), or another base model"),
    "cache": (
        "keep its inputs' keys and values",
        "leave the cache off (train.cache=off); the run is the same, only slower",
    ),
    "decoder": ("take soft tokens in its decoder", "use placement=before or after"),
    "generate": (
        "write text as it is trained",
        "score labels (task.kind=classification), or another base model",
    ),
}


def refusal(spec: ModelSpec, limit: str) -> SoftPromptError:
    """The error where a model has this limit: "prefix", "cache", "decoder" or "generate"."""
    meaning, fix = _MEANING[limit]
    return SoftPromptError(f"model family '{spec.family}' cannot {meaning}", why=spec.limits[limit], fix=fix)


def writes_no_text(name: str) -> SoftPromptError:
    """The error where text is asked of an encoder."""
    return SoftPromptError(
        f"'{name}' writes no text",
        why="an encoder fills in masked words, or has a head for labels",
        fix="use task.kind=classification, or a causal language model",
    )


def no_decoder(spec: ModelSpec) -> SoftPromptError:
    """The error where soft tokens for a decoder are given to a model of one stack."""
    return SoftPromptError(
        f"placement=decoder cannot be combined with a {spec.family} model",
        why="it has no encoder and decoder",
        fix="use placement=before or after",
    )


def no_checkpointing(spec: ModelSpec, why: str) -> SoftPromptError:
    """The error where layers cannot be computed again in the backward pass."""
    return SoftPromptError(
        f"gradient checkpointing cannot be combined with a {spec.family} model",
        why=why,
        fix="leave it off, and use smaller batches (train.batch_size)",
    )


def projections_split() -> SoftPromptError:
    """Return the error for a method that uses parts of a layer whose weights are split over devices."""
    return SoftPromptError(
        "this method cannot be trained on a base that is split over devices",
        why="it uses the projections of a layer outside that layer, where its weights are not gathered",
        fix="another method (prefix-tuning, prompt-tuning), or leave train.shard out",
    )


def refuse_wrapped(model: Any) -> None:
    """Raise SoftPromptError for a model in PEFT's wrapper."""
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        raise SoftPromptError(
            f"a {type(model).__name__} of PEFT's is no base model",
            why="its wrapper changes what the model is given, so vectors would not reach it unchanged",
            fix="merge its LoRA first: model.merge_and_unload() gives a base model. A prompt or prefix of "
            "PEFT's is brought in with `softprompt import`, on its base model",
        )


def closed(name: str) -> SoftPromptError:
    """The error for a `LanguageModel` that was closed."""
    return SoftPromptError(
        f"'{name}' was closed",
        why="closing it gave its model back as it was before, without anything of softprompt's",
        fix="load the model again, or close it after its last use",
    )


def not_matched(spec: ModelSpec) -> SoftPromptError:
    """Return the error where a prefix cannot start as the closed-form match of a text."""
    return SoftPromptError(
        f"init=matched does not support {spec.kind} models ({spec.family})",
        why="it fits a prefix that a decoder-only model reads ahead of its row",
        fix="method.init=context",
    )
