"""Checks the options of `load` before anything is read: those that have no effect are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..errors import SoftPromptError
from . import locate
from .attention_choice import check_choice


def attention(attn_implementation: str | None, attention: str) -> str | None:
    """Return the attention function that was asked for, under either name; None for the default.

    Raises SoftPromptError where two names say different things, and for a function that takes no vectors.
    """
    given = {name for name in (attn_implementation, attention) if name not in (None, "auto")}
    if len(given) > 1:
        raise SoftPromptError(
            f"attn_implementation='{attn_implementation}' and attention='{attention}' are one setting",
            why="they say different things",
            fix=f"attn_implementation='{attn_implementation}' alone",
        )
    for name in given:
        check_choice(name)
    return next(iter(given), None)


def check(name: str, aliases: Collection[str], tokenizer: Any, options: Mapping[str, Any]) -> None:
    """Raise SoftPromptError for options that do not belong to a model that is loaded by its name."""
    if tokenizer is not None:
        raise SoftPromptError(
            f"a tokenizer is given beside the name '{name}'",
            why="a model that is loaded by its name has its own tokenizer",
            fix="leave it out, or give the model itself: softprompt.load(model, tokenizer)",
        )
    if options["weights"] == "int8":
        _check_int8(name, options)
    if options["device_map"] is not None and options["device"] is not None:
        raise SoftPromptError(
            "device and device_map are both given",
            why="each says where the model goes",
            fix="give device_map alone",
        )
    if (
        options["revision"] is not None
        and locate.is_place(name, aliases)
        and not locate.on_hub(name, aliases)
    ):
        raise SoftPromptError(
            f"revision='{options['revision']}' has no effect on '{name}'",
            why="it is on this machine; only the hub has revisions",
            fix="leave revision out, or give the hub id (owner/name)",
        )


def _check_int8(name: str, options: Mapping[str, Any]) -> None:
    why = {
        "quantization_config": "it rounds the weights in its own way",
        "device_map": "layers that accelerate moves between devices stay as they are",
        "shard": "a split layer has a part of its weights on each device",
    }
    for option, reason in why.items():
        if options[option] is not None:
            raise SoftPromptError(
                f"weights=int8 cannot be combined with {option} for '{name}'",
                why=reason,
                fix="leave out one of the two",
            )


def check_in_memory(options: Mapping[str, Any]) -> None:
    """Raise SoftPromptError for options of loading beside a model that is loaded already."""
    if given := [name for name, value in options.items() if value is not None]:
        raise SoftPromptError(
            f"{' and '.join(given)} cannot be set for a model in memory",
            why="it is loaded already",
            fix="give them to its own from_pretrained, or give the model's name",
        )
