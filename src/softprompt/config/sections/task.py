"""The sections `data`, `template`, `task` and `teacher` say which rows there are, and what is predicted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from softprompt.config.sections.base import Fraction, Inside, Name, Positive, Rate, Section, mistake


class DataConfig(Section):
    """The places that rows are read from, each a file, a folder or `hf:NAME[:SPLIT]`."""

    train: Name
    dev: Name | None = None
    test: Name | None = None
    prompt_field: Name | None = None  # the column that names each row's prompt
    limit: Positive | None = None  # train rows kept, after a seeded shuffle
    dev_fraction: Inside = 0.1  # taken from train if `dev` is not given
    dev_limit: Positive | None = 500
    max_input_tokens: Positive | None = None  # longer inputs lose their first tokens
    max_target_tokens: Positive | None = None  # longer generation targets lose their last tokens


class TemplateConfig(Section):
    """The templates are Jinja2 over a row's fields, used literally (spaces are kept)."""

    input: Name = "{{ input }}"
    target: Name = "{{ target }}"
    rejected: Name | None = None  # preference: the answer that the target is preferred to
    chat: bool = False  # wrap the input in the model's own chat template
    system: str | None = None
    chat_options: dict[str, Any] = {}  # variables of the chat template: enable_thinking, …
    chat_date: Name | None = None  # the date that a chat template may write, as 2024-07-26
    continues: bool = False  # inputs follow the vectors' demonstrations, without a beginning of their own

    @model_validator(mode="after")
    def _needs_chat(self) -> TemplateConfig:
        if self.system is not None and not self.chat:
            raise mistake("`system` has an effect only with `chat: true`; else put the text into `input`")
        for key in ("chat_options", "chat_date"):
            if getattr(self, key) and not self.chat:
                raise mistake(f"`{key}` has an effect only with `chat: true`")
        return self


class TaskConfig(Section):
    """The task is what is predicted, and how it is scored."""

    kind: Literal[
        "generation",
        "classification",
        "choice",
        "token-classification",
        "regression",
        "preference",
        "embedding",
    ] = "generation"
    labels: list[Name] | None = None  # classification; None: the distinct targets of the training rows
    head: bool = False  # classification: a trained head predicts labels that are no words
    verbalizer: dict[Name, Name] | None = None  # masked words: the word for each label
    words: Name = "words"  # token-classification: the field that holds the row's list of words
    tags: Name = "tags"  # and the one that holds their tags
    choices: Name | None = None  # choice: the field that holds the row's list of choices
    references: Name | None = None  # generation: the field that holds a list of reference texts
    beta: Rate = 0.1  # preference: how strongly DPO keeps to the reference model
    negatives: Name = "negatives"  # embedding: the field of texts that do not fit, where a row has it
    score: Name | None = None  # embedding: the field of a pair's score, which is learned in place of ranks
    score_range: tuple[float, float] = (0.0, 1.0)  # the scores of the most unlike and the most alike texts
    scale: Rate = 20.0  # embedding: what cosines are multiplied by (1 / temperature)
    pooling: Literal["mean", "cls", "last"] | None = None  # embedding; None: as the base has it
    query: Name | None = None  # regression: the field of a row's query, whose documents are ranked
    objective: Literal["targets", "distil"] = "targets"  # the tokens themselves, or a teacher's distributions
    metrics: list[Name] | None = None
    max_new_tokens: Positive = 64

    @model_validator(mode="after")
    def _fields_fit_kind(self) -> TaskConfig:
        if self.kind == "choice" and self.choices is None:
            raise mistake("`kind: choice` needs `choices`, the field that holds a row's list of choices")
        if self.kind != "choice" and self.choices is not None:
            raise mistake(f"`choices` belongs to `kind: choice`, but kind is {self.kind}")
        for key in ("head", "verbalizer"):
            if getattr(self, key) and self.kind != "classification":
                raise mistake(f"`{key}` belongs to `kind: classification`, but kind is {self.kind}")
        if "beta" in self.model_fields_set and self.kind != "preference":
            raise mistake(f"`beta` belongs to `kind: preference`, but kind is {self.kind}")
        for key in EMBEDDING:
            if key in self.model_fields_set and self.kind != "embedding":
                raise mistake(f"`{key}` belongs to `kind: embedding`, but kind is {self.kind}")
        if self.query is not None and self.kind != "regression":
            raise mistake(f"`query` belongs to `kind: regression`, but kind is {self.kind}")
        if self.score_range[0] >= self.score_range[1]:
            raise mistake("`score_range` needs the lower score first, as in [0, 5]")
        if self.score is None and self.score_range != (0.0, 1.0):
            raise mistake("`score_range` has an effect only with `score`, the field of a pair's score")
        if self.references is not None and self.kind == "embedding":
            raise mistake("`references` belongs to `kind: generation`, but kind is embedding")
        if self.references is not None and self.kind == "preference":
            raise mistake("`references` belongs to `kind: generation`, but kind is preference")
        if self.head and self.verbalizer:
            raise mistake("`verbalizer` names words, but with `head: true` labels are no words")
        if self.objective == "distil" and self.kind != "generation":
            raise mistake(f"`objective: distil` belongs to `kind: generation`, but kind is {self.kind}")
        if self.labels is None:
            return self
        if self.kind not in ("classification", "token-classification"):
            raise mistake(f"`labels` belongs to `kind: classification`, but kind is {self.kind}")
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            raise mistake(f"`labels` holds {', '.join(map(repr, twice))} more than once")
        if len(self.labels) < 2:
            raise mistake("`labels` needs at least two labels")
        return self

    @property
    def needs_head(self) -> bool:
        """Return whether a head answers, which is trained and saved with the prompt."""
        return self.head or self.kind in ("token-classification", "regression")


#: The templates of tasks whose rows are usually published with fields of these names.
FIELDS = {
    "preference": {"input": "{{ prompt }}", "target": "{{ chosen }}", "rejected": "{{ rejected }}"},
    "embedding": {"input": "{{ query }}", "target": "{{ positive }}"},
}
#: Keys of an embedding task alone.
EMBEDDING = ("negatives", "score", "score_range", "scale", "pooling")


#: What comes ahead of a document that is the system text of a chat.
FRAME = "Here is a document. Answer what the user asks about it.\n\n"


class TeacherText(Section):
    """A text is given as it is, by the file that holds it, or (in results) by its hash."""

    context: Name | None = None  # the text
    file: Name | None = None  # that holds the text
    sha256: Name | None = None  # of a text that was learned from (see `Recipe.recorded`)


class TeacherConfig(TeacherText):
    """The teacher of `task.objective: distil` is the frozen model with this text ahead of each input."""

    texts: dict[Name, TeacherText] | None = None  # one for each prompt of `data.prompt_field`, by its name
    role: Literal["system", "document"] = "system"  # what the text is to the model
    chunk_tokens: Positive | None = None  # of a document; None: 1,024, or as many as the context holds
    top_k: Positive = 20  # of its likeliest tokens whose probabilities are kept; the rest is one class
    on_policy: Fraction = 0.0  # the share of training rows that the student answers itself

    @model_validator(mode="after")
    def _one_text(self) -> TeacherConfig:
        if self.context is not None and self.file is not None:
            raise mistake("`teacher` needs a text or the file that holds it, not both")
        if self.texts is not None and (self.context is not None or self.file is not None):
            raise mistake("`teacher` needs one text or several `texts`, not both")
        for name, text in (self.texts or {}).items():
            parts = [part for part in (text.context, text.file or text.sha256) if part is not None]
            if len(parts) != 1:
                raise mistake(f"`teacher.texts.{name}` needs a text (`context`) or the file that holds it")
        if self.chunk_tokens is not None and self.role != "document":
            raise mistake("`teacher.chunk_tokens` belongs to `role: document`")
        return self

    @property
    def has_text(self) -> bool:
        """Return whether the section names a text, or the hash of one."""
        return any(part is not None for part in (self.context, self.file, self.sha256, self.texts))

    def of(self, name: str) -> TeacherConfig:
        """Return the section with the text of one prompt alone."""
        text = (self.texts or {})[name]
        return self.model_copy(update={"texts": None, **dict(text)})

    def without_text(self) -> TeacherConfig:
        """Return the section with the text's hash (sha256, hex) in place of the text."""
        return self._changed(_hashed)

    def recorded(self) -> TeacherConfig:
        """Return the section as results keep it: `without_text`, and with the hash of each file's text.

        Where a file's text was read before (`data.teacher_texts`), it is the hash of that text. A file that
        cannot be read keeps the hash that it has, if any.
        """
        return self._changed(_hashed_file).without_text()

    def _changed(self, change: Callable[[Any], Any]) -> TeacherConfig:
        texts = self.texts and {name: change(text) for name, text in self.texts.items()}
        return change(self).model_copy(update={"texts": texts})


def _hashed(text: Any) -> Any:
    if text.context is None:
        return text
    return text.model_copy(update={"context": None, "sha256": text_hash(text.context)})


def _hashed_file(text: Any) -> Any:
    if text.file is None or text.context is not None:
        return text
    try:
        content = Path(text.file).read_text(encoding="utf-8-sig")  # as `data.teacher_texts`
    except (OSError, UnicodeDecodeError):
        return text
    return text.model_copy(update={"sha256": text_hash(content)})


def text_hash(text: str) -> str:
    """Return the hash (sha256, hex) that names a teacher's text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
