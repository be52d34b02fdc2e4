"""Constraints on answers that a program can check: a set of labels, JSON, a length, a regular expression.

    {labels: [good, bad]}  {json: true}  {json: {SCHEMA}}  {max_words: 20}  {max_tokens: 30}  {regex: '^A'}

Several keys in one mapping must all hold. Other packages add keys by entry points of the group
`softprompt.constraints` (docs/own-method.md). This file knows nothing of models: it gets texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..._system.plugins import Registry
from ...errors import SoftPromptError, unknown

Words = Callable[[str], int]  # how many tokens a text has


@dataclass(frozen=True)
class Part:
    """A part that another package checks: its value in the recipe, and whether a text satisfies it."""

    value: Any
    check: Callable[[str], bool]


@dataclass(frozen=True)
class Constraint:
    """A constraint states what an answer must be, outer whitespace aside; None means any."""

    labels: tuple[str, ...] | None = None  # it is one of these
    json: bool | Mapping[str, Any] | None = None  # it parses; with a mapping, it fits that JSON schema
    max_words: int | None = None  # separated by whitespace
    max_tokens: int | None = None
    regex: re.Pattern[str] | None = None  # found in it (write ^…$ for all of it)
    others: Mapping[str, Part] = field(default_factory=dict)  # of other packages, by name

    @staticmethod
    def parse(written: Mapping[str, Any], labels: Sequence[str] | None = None) -> Constraint:
        """Read a mapping as a recipe holds it; `labels: true` means the labels of the task.

        Raises SoftPromptError for unknown or no keys, and for values that cannot be checked.
        """
        if not isinstance(written, Mapping) or not written:
            raise SoftPromptError(
                f"a constraint is a mapping with a key, not {written!r}",
                why=f"known: {', '.join(CONSTRAINTS)}",
                fix="for example {max_words: 20}",
            )
        if strange := next((key for key in written if key not in CONSTRAINTS), None):
            raise unknown("constraint", str(strange), CONSTRAINTS)
        values = {name: CONSTRAINTS[name](value, labels) for name, value in written.items()}
        others = {name: value for name, value in values.items() if name not in _PARSERS}
        return Constraint(**{k: v for k, v in values.items() if k in _PARSERS}, others=others)

    def broken(self, answer: str, count_tokens: Words | None = None) -> list[str]:
        """Return the names of the parts that do not hold; `max_tokens` needs `count_tokens`."""
        text = answer.strip()
        broken = {
            "labels": self.labels is not None and text not in self.labels,
            "json": self.json is not None and not _is_json(text, self.json),
            "max_words": self.max_words is not None and len(text.split()) > self.max_words,
            "max_tokens": self.max_tokens is not None and _count(text, count_tokens) > self.max_tokens,
            "regex": self.regex is not None and not self.regex.search(text),
        } | {name: not part.check(text) for name, part in self.others.items()}
        return [name for name, is_broken in broken.items() if is_broken]

    def holds(self, answer: str, count_tokens: Words | None = None) -> bool:
        """Return whether every part holds."""
        return not self.broken(answer, count_tokens)

    @property
    def parts(self) -> list[str]:
        """Return the names of the parts that it has."""
        return [*(name for name in _PARSERS if getattr(self, name) is not None), *self.others]

    def __str__(self) -> str:
        values = {name: getattr(self, name) for name in _PARSERS}
        values |= {name: part.value for name, part in self.others.items()}
        return ", ".join(f"{name} {_shown(values[name])}" for name in self.parts)


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


def _constraint_of(name: str, target: Any) -> Callable[[Any, Sequence[str] | None], Part]:
    """Read a constraint of another package: a function of its value and the labels, which gives a check."""
    if not callable(target):
        raise SoftPromptError(
            f"a constraint is a function, not a {type(target).__name__}",
            fix="write `def max_lines(value, labels): return lambda text: …` (docs/own-method.md)",
        )

    def parse(value: Any, labels: Sequence[str] | None) -> Part:
        try:
            check = target(value, labels)
        except (TypeError, ValueError) as error:
            raise SoftPromptError(
                f"constraint `{name}` cannot take {value!r}", why=str(error), fix="correct its value"
            ) from error
        if not callable(check):
            raise SoftPromptError(
                f"constraint `{name}` gave a {type(check).__name__} instead of a check",
                why="it must return a function of a text that returns True or False",
                fix="correct the package that it comes from",
            )
        return Part(value, lambda text: _checked(name, check, text))

    return parse


def _checked(name: str, check: Callable[..., Any], text: str) -> bool:
    try:
        return bool(check(text))
    except Exception as error:
        raise SoftPromptError(
            f"constraint `{name}` failed on the answer {text[:60]!r}",
            why=f"{type(error).__name__}: {error}",
            fix="correct the package that it comes from",
        ) from error


CONSTRAINTS: Registry[Callable[[Any, Sequence[str] | None], Any]] = Registry(
    "constraint", "softprompt.constraints", _PARSERS, _constraint_of
)


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
