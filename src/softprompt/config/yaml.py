"""Reads YAML as plain values, with the line of every key for the messages about a recipe.

Scalars are those of YAML 1.2 (`1e-2` is a number, `no` is text). This file does not know what the keys
mean, except for one list whose texts are kept exactly as written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from softprompt.errors import SoftPromptError

MAX_VALUES = 20_000  # of a recipe, each counted as often as an alias repeats it
MAX_DEPTH = 40  # lists and mappings inside each other
AS_WRITTEN = ("task", "labels")  # `labels: [yes, 1.0]` stays text, exactly as written
KeyPath = tuple[str | int, ...]  # the place of a value in the tree
Pair = tuple[
    yaml.ScalarNode, yaml.Node, bool
]  # a key, its value, and whether it is written in the mapping itself


class TooMuchError(yaml.YAMLError):
    """A YAML text that would become more than a recipe may hold."""


def read_value(text: str, path: KeyPath) -> Any:
    """Read one YAML value (the text after `key=` of an override).

    Raises yaml.YAMLError if it is not valid, TooMuchError if it is too much.
    """
    if text.strip() == "-":  # as a file name it means standard input, not an empty list
        return text
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return text if node is None else Reading().plain(loader, node, path, ())
    except RecursionError:
        raise TooMuchError(_TOO_DEEP) from None


@dataclass
class Reading:
    """Collects the lines by path, and the mistakes, while YAML is read."""

    origins: dict[KeyPath, str] = field(default_factory=dict)  # path -> "line 4"
    mistakes: list[tuple[str, str]] = field(default_factory=list)  # (origin, text)
    _pairs: dict[int, list[Pair]] = field(default_factory=dict, init=False)
    _values: int = field(default=0, init=False)

    def document(self, text: str, source: str) -> Any:
        """Read a whole text. Raises SoftPromptError with the line at which it is not YAML."""
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            return {} if root is None else self.plain(loader, root, (), ())
        except (TooMuchError, RecursionError) as error:
            why = f"a recipe holds at most {MAX_VALUES:,} values, at most {MAX_DEPTH} deep"
            reason = str(error) if isinstance(error, TooMuchError) else _TOO_DEEP
            raise SoftPromptError(
                f"{source}: {reason}", why, "write it without aliases, or shorter"
            ) from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{source}:{mark.line + 1}" if mark else source
            raise SoftPromptError(
                f"{where}: not valid YAML: {str(getattr(error, 'problem', None) or error)[:200]}",
                why=f"column {mark.column + 1}" if mark else "",
                fix="check the indentation, and quote values that hold ': ' or '#' or begin with '{'",
            ) from None

    def plain(self, loader: _Loader, node: yaml.Node, path: KeyPath, above: tuple[yaml.Node, ...]) -> Any:
        """Return a YAML node as plain values, and note the line of every key and list item."""
        if node in above:
            raise yaml.constructor.ConstructorError(None, None, "an alias that holds itself", node.start_mark)
        above = (*above, node)
        self._values += 1
        if self._values > MAX_VALUES:
            raise TooMuchError(f"it holds more than {MAX_VALUES:,} values, with each use of an alias counted")
        if len(above) > MAX_DEPTH:
            raise TooMuchError(_TOO_DEEP)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.origins[(*path, index)] = f"line {item.start_mark.line + 1}"
            return [self.plain(loader, item, (*path, i), above) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            result: dict[Any, Any] = {}
            seen: set[Any] = set()
            for key_node, value_node, written in self._merged(node, ()):
                key = key_node.value
                line = f"line {key_node.start_mark.line + 1}"
                if written:
                    if key in seen:
                        first = self.origins[(*path, key)]
                        self.mistakes.append((line, f"key '{key}' is written twice, first at {first}"))
                    seen.add(key)
                self.origins[(*path, key)] = line
                result[key] = self.plain(loader, value_node, (*path, key), above)
            return result
        if path[:2] == AS_WRITTEN and len(path) == 3:
            return node.value
        return _scalar(loader, node)

    def _merged(self, node: yaml.MappingNode, above: tuple[int, ...]) -> list[Pair]:
        """Return a mapping's keys and values: those that `<<` merges, each once, then those written in it."""
        if id(node) in self._pairs:
            return self._pairs[id(node)]
        if id(node) in above:
            raise yaml.constructor.ConstructorError(None, None, "an alias that holds itself", node.start_mark)
        merged: dict[str, Pair] = {}
        written: list[Pair] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key that is itself a mapping or list (quote what begins with '{{')"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.tag != "tag:yaml.org,2002:merge":
                written.append((key, value, True))
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    problem = "`<<` merges a mapping, or a list of them"
                    raise yaml.constructor.ConstructorError(None, None, problem, source.start_mark)
                for name, item, _ in self._merged(source, (*above, id(node))):
                    merged.setdefault(name.value, (name, item, False))
        self._pairs[id(node)] = pairs = [*merged.values(), *written]
        return pairs


def _scalar(loader: _Loader, node: yaml.Node) -> Any:
    """Return a text, number, truth value or None; a tag such as !!int applies if the value fits it."""
    try:
        value = loader.construct_object(node)
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError):
        value = ...
    if value is None or isinstance(value, (str, int, float)):
        return value
    tag = node.tag.rpartition(":")[2]
    kind = "a number of so many digits" if len(str(node.value)) > 1000 else f"a value marked as {tag}"
    raise yaml.constructor.ConstructorError(
        None, None, f"{kind} is not read here (write the value itself)", node.start_mark
    )


_TOO_DEEP = f"its lists and mappings are nested more than {MAX_DEPTH} deep"


class _Loader(yaml.SafeLoader):
    """Reads scalars as YAML 1.2: `1e-2` is a number; `yes`, `no`, `on`, `off`, dates and `12:30` are text."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+0123456789."),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
