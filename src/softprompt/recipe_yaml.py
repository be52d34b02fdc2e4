"""YAML as plain values, with the line of every key: what the messages about a recipe point to.

Scalars are those of YAML 1.2 (`1e-2` is a number, `no` is text). This file does not know what the keys
mean, but for the one list whose texts are kept exactly as written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from softprompt.errors import SoftPromptError

AS_WRITTEN = ("task", "labels")  # `labels: [yes, 1.0]` stays text, exactly as written
KeyPath = tuple[str | int, ...]  # where a value stands in the tree


def read_value(text: str, path: KeyPath) -> Any:
    """One YAML value (what follows `key=` of an override); raises yaml.YAMLError where it is none."""
    loader = _Loader(text)
    node = loader.get_single_node()
    return text if node is None else Reading().plain(loader, node, path, ())


@dataclass
class Reading:
    """What was read: lines by path, and the mistakes found on the way."""

    origins: dict[KeyPath, str] = field(default_factory=dict)  # path -> "line 4"
    mistakes: list[tuple[str, str]] = field(default_factory=list)  # (origin, text)
    _written: dict[int, set[int]] = field(default_factory=dict, init=False)

    def document(self, text: str, source: str) -> Any:
        """The whole text. Raises SoftPromptError with the line where it is not YAML."""
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            return {} if root is None else self.plain(loader, root, (), ())
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{source}:{mark.line + 1}" if mark else source
            raise SoftPromptError(
                f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}",
                why=f"column {mark.column + 1}" if mark else "",
                fix="check the indentation, and quote values that hold ': ' or '#' or begin with '{'",
            ) from None

    def plain(self, loader: _Loader, node: yaml.Node, path: KeyPath, above: tuple[yaml.Node, ...]) -> Any:
        """A YAML node as plain values; notes the line of every key and list item."""
        if node in above:
            raise yaml.constructor.ConstructorError(None, None, "an alias that holds itself", node.start_mark)
        above = (*above, node)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.origins[(*path, index)] = f"line {item.start_mark.line + 1}"
            return [self.plain(loader, item, (*path, i), above) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            # Only keys written here count as duplicates, not those merged in by `<<`; remembered, for an
            # anchored mapping is seen again, already flattened, at each alias.
            written = self._written.setdefault(id(node), {id(key) for key, _ in node.value})
            loader.flatten_mapping(node)
            result: dict[Any, Any] = {}
            own: set[Any] = set()
            for key_node, value_node in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    problem = "a key that is itself a mapping or list (quote what begins with '{{')"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                key = key_node.value
                line = f"line {key_node.start_mark.line + 1}"
                if id(key_node) in written:
                    if key in own:
                        first = self.origins[(*path, key)]
                        self.mistakes.append((line, f"key '{key}' is written twice, first at {first}"))
                    own.add(key)
                self.origins[(*path, key)] = line
                result[key] = self.plain(loader, value_node, (*path, key), above)
            return result
        if path[:2] == AS_WRITTEN and len(path) == 3:
            return node.value
        return loader.construct_object(node)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `1e-2` is a number; `yes`, `no`, `on`, `off`, dates and `12:30` are text."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+0123456789."),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
