"""An encoder is built from these parts: task, model, limits, and options of the chat template.

This file knows plain values, and no tokenizers or models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from softprompt.data.capacity import Room

KINDS = {  # of task, by where a model's answers are read
    "next": ("generation", "classification", "choice", "preference"),
    "mask": ("classification",),
    "head": ("classification", "token-classification", "regression"),
    "pooled": ("embedding",),
}


WRITTEN = ("generation", "preference")  # kinds of task whose prompts answer with text of their own


@dataclass(frozen=True, slots=True)
class Task:
    """A task has a kind, labels and prompts."""

    kind: str = "generation"
    labels: Sequence[str] | None = None  # None: the labels of the first rows that are encoded
    prompts: Sequence[str] = ("default",)  # names; a row's prompt is an index into them
    verbalizer: Mapping[str, str] = field(default_factory=dict)  # a word for each label, written at masks
    score_range: tuple[float, float] | None = None  # embedding: pairs have a score between these two
    names_labels: bool = False  # the recipe names the labels, so they are not those of the training rows

    @property
    def has_labels(self) -> bool:
        return self.kind in ("classification", "token-classification")


@dataclass(frozen=True, slots=True)
class ModelSide:
    """A model reads a row and answers it in this way; by default, as a decoder-only model."""

    # after the input, at masks in it, off a head, or by a vector of the whole text
    answers: Literal["next", "mask", "head", "pooled"] = "next"
    kind: Literal["decoder", "encoder-decoder", "encoder"] = "decoder"
    ends: Collection[int] = ()  # tokens beside the tokenizer's own end token that end an answer
    vocabulary: int | None = None  # ids below it have an embedding in the model; None: all have one

    @property
    def reads_apart(self) -> bool:
        """Return whether input and target are separate texts, for an encoder and a decoder."""
        return self.kind == "encoder-decoder"


@dataclass(frozen=True, slots=True)
class Limits:
    """Rows are cut to these numbers of tokens, and must fit into the room."""

    max_input_tokens: int | None = None
    max_target_tokens: int | None = None
    room: Room = field(default_factory=Room)  # what the model's positions hold; by default, anything


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """The model's chat template is given these values beside the turns; see `data.chat`."""

    options: Mapping[str, Any] = field(default_factory=dict)
    date: str | None = None  # YYYY-MM-DD, for a template that writes the date
