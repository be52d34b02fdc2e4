"""Constraints on answers that a program can check: a set of labels, JSON, a length, a regular expression.

    {labels: [good, bad]}  {json: true}  {json: {SCHEMA}}  {max_words: 20}  {max_tokens: 30}  {regex: '^A'}

Several keys in one mapping must all hold. This file knows nothing of models: it gets texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ...errors import SoftPromptError, unknown

Words = Callable[[str], int]  # how many tokens a text has


@dataclass(frozen=True)
class Constraint:
    """A constraint states what an answer must be, outer whitespace aside; None means any."""

    labels: tuple[str, ...] | None = None  # it is one of these
    json: bool | Mapping[str, Any] | None = None  # it parses; with a mapping, it fits that JSON schema
    max_words: int | None = None  # separated by whitespace
    max_tokens: int | None = None
    regex: re.Pattern[str] | None = None  # found in it (write ^…$ for all of it)

    @staticmethod
    def parse(written: Mapping[str, Any], labels: Sequence[str] | None = None) -> Constraint:
        """Read a mapping as a recipe holds it; `labels: true` means the labels of the task.

        Raises SoftPromptError for unknown or no keys, and for values that cannot be checked.
        """
        names = [field.name for field in fields(Constraint)]
        if not isinstance(written, Mapping) or not written:
            raise SoftPromptError(
                f"a constraint is a mapping with a key, not {written!r}",
                why=f"known: {', '.join(names)}",
                fix="for example {max_words: 20}",
            )
        if strange := next((key for key in written if key not in names), None):
            raise unknown("constraint", str(strange), names)
        values = {name: _PARSERS[name](value, labels) for name, value in written.items()}
        return Constraint(**values)

    def broken(self, answer: str, count_tokens: Words | None = None) -> list[str]:
        """Return the names of the parts that do not hold; `max_tokens` needs `count_tokens`."""
        text = answer.strip()
        broken = {
            "labels": self.labels is not None and text not in self.labels,
            "json": self.json is not None and not _is_json(text, self.json),
            "max_words": self.max_words is not None and len(text.split()) > self.max_words,
            "max_tokens": self.max_tokens is not None and _count(text, count_tokens) > self.max_tokens,
            "regex": self.regex is not None and not self.regex.search(text),
        }
        return [name for name, is_broken in broken.items() if is_broken]

    def holds(self, answer: str, count_tokens: Words | None = None) -> bool:
        """Return whether every part holds."""
        return not self.broken(answer, count_tokens)

    @property
    def parts(self) -> list[str]:
        """Return the names of the parts that it has."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def __str__(self) -> str:
        return ", ".join(f"{name} {_shown(getattr(self, name))}" for name in self.parts)


def _labels(value: Any, labels: Sequence[str] | None) -> tuple[str, ...]:
    if value is True and labels:
        return tuple(labels)
    if value is True:
        raise SoftPromptError(
            "constraint `labels: true` means the task's labels, and it has none",
            fix="name them: labels: [good, bad]",
        )
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise _wrong("labels", value, "a list of texts, or true for the task's own", "labels: [good, bad]")
    return tuple(str(label).strip() for label in value)


def _json(value: Any, labels: Sequence[str] | None) -> bool | Mapping[str, Any]:
    if value is True:
        return True
    if not isinstance(value, Mapping):
        raise _wrong("json", value, "true, or a JSON schema", "json: {type: object, required: [name]}")
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(value).check_schema(dict(value))
    except SchemaError as error:
        place = ".".join(map(str, error.absolute_path))
        raise SoftPromptError(
            "constraint `json` is not a JSON schema" + (f", at {place}" if place else ""),
            why=error.message,
            fix="correct the schema (json-schema.org), or json: true for any JSON",
        ) from None
    return value


def _length(name: str) -> Callable[[Any, Sequence[str] | None], int]:
    def parse(value: Any, labels: Sequence[str] | None) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise _wrong(name, value, "a whole number from 1 up", f"{name}: 20")
        return value

    return parse


def _regex(value: Any, labels: Sequence[str] | None) -> re.Pattern[str]:
    if not isinstance(value, str) or not value:
        raise _wrong("regex", value, "a regular expression", "regex: '^[A-Z]'")
    try:
        return re.compile(value)
    except re.error as error:
        raise SoftPromptError(
            f"constraint `regex` is not a regular expression: {value!r}",
            why=str(error),
            fix="correct it; the syntax is Python's (`\\` before characters with a meaning)",
        ) from None


_PARSERS: dict[str, Callable[[Any, Sequence[str] | None], Any]] = {
    "labels": _labels,
    "json": _json,
    "max_words": _length("max_words"),
    "max_tokens": _length("max_tokens"),
    "regex": _regex,
}


def _wrong(name: str, value: Any, wanted: str, example: str) -> SoftPromptError:
    return SoftPromptError(f"constraint `{name}` is {wanted}, not {value!r}", fix=f"for example {example}")


def _is_json(text: str, schema: bool | Mapping[str, Any]) -> bool:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    if not isinstance(schema, Mapping):
        return True
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY
    from referencing.exceptions import Unresolvable

    try:  # with the registry given, nothing is looked up on the network
        return validator_for(schema)(dict(schema), registry=REGISTRY).is_valid(value)
    except Unresolvable as error:
        raise SoftPromptError(
            "constraint `json` refers to a schema that is not there",
            why=str(error),
            fix="write it into the schema itself ($defs); nothing is downloaded",
        ) from None


def _refuse(name: str) -> None:
    """Refuse NaN and Infinity, which are Python's and not JSON's."""
    raise ValueError(name)


def _count(text: str, count_tokens: Words | None) -> int:
    if count_tokens is None:
        raise SoftPromptError("max_tokens needs a tokenizer", fix="pass count_tokens, or use max_words")
    return count_tokens(text)


def _shown(value: Any) -> str:
    if isinstance(value, re.Pattern):
        return value.pattern
    return ", ".join(value) if isinstance(value, tuple) else json.dumps(value)
