"""The parts that an encoder is built from: task, model, limits, and options of the chat template.

This file knows plain values, and no tokenizers or models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from softprompt.data.capacity import Room

KINDS = {  # of task, by where a model's answers are read
    "next": ("generation", "classification", "choice"),
    "mask": ("classification",),
    "head": ("classification", "token-classification", "regression"),
}


@dataclass(frozen=True, slots=True)
class Task:
    """What the model is to answer, and under which prompts."""

    kind: str = "generation"
    labels: Sequence[str] | None = None  # None: the labels of the first rows that are encoded
    prompts: Sequence[str] = ("default",)  # names; a row's prompt is an index into them
    verbalizer: Mapping[str, str] = field(default_factory=dict)  # a word for each label, written at masks
    names_labels: bool = False  # the recipe names the labels, so they are not those of the training rows

    @property
    def has_labels(self) -> bool:
        return self.kind in ("classification", "token-classification")


@dataclass(frozen=True, slots=True)
class ModelSide:
    """How a model reads a row and answers it; the defaults are those of a decoder-only model."""

    answers: Literal["next", "mask", "head"] = "next"  # after the input, at masks in it, or off a head
    kind: Literal["decoder", "encoder-decoder", "encoder"] = "decoder"
    ends: Collection[int] = ()  # tokens beside the tokenizer's own end token that end an answer
    vocabulary: int | None = None  # ids below it have an embedding in the model; None: all have one

    @property
    def reads_apart(self) -> bool:
        """Whether input and target are separate texts, for an encoder and a decoder."""
        return self.kind == "encoder-decoder"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many tokens of a row are kept."""

    max_input_tokens: int | None = None
    max_target_tokens: int | None = None
    room: Room = field(default_factory=Room)  # what the model's positions hold; by default, anything


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What the model's chat template is given beside the turns; see `data.chat`."""

    options: Mapping[str, Any] = field(default_factory=dict)
    date: str | None = None  # YYYY-MM-DD, for a template that writes the date
