"""A template is compiled, its fields are found, and it is rendered within its limits."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import meta, nodes

from softprompt.data import template_limits
from softprompt.data.jinja import Fields, environment
from softprompt.data.row import Row
from softprompt.data.template_errors import of_row, rendering_error
from softprompt.errors import SoftPromptError


@dataclass(frozen=True)
class Compiled:
    """One of the two templates, with the fields that it names, in the order of their first mention."""

    name: str  # template.input or template.target
    source: str
    template: jinja2.Template
    fields: tuple[str, ...]
    whole_fields: tuple[str, ...]  # those that are written as they are
    whole_row: bool  # it reads `row`

    def render(self, row: Row, names: Mapping[str, str]) -> str:
        """Render a row, with further `names` beside its fields. Raises SoftPromptError that names the row."""
        values: dict[str, Any] = copy.deepcopy(dict(row)) if "append" in self.source else dict(row)
        if self.whole_row or "row" not in row:  # a field named row does not hide the row in `row["…"]`
            values["row"] = Fields(row)
        try:
            with template_limits.spending():
                return self.template.render({**values, **names})
        except Exception as error:
            raise rendering_error(error, row, self.name, self.source, self.fields) from None


def compiled(name: str, source: str, hidden: tuple[str, ...] = ()) -> Compiled:
    """Compile a template; `hidden` names are no fields. Raises SoftPromptError where that is not possible."""
    if len(source) > template_limits.MAX_SOURCE:
        raise SoftPromptError(
            f"{name} is too long: {len(source):,} characters",
            f"at most {template_limits.MAX_SOURCE:,} are read",
        )
    sandbox = environment(name == "template.input")
    try:
        tree = sandbox.parse(source)
        fields, whole_fields, whole_row = _names(tree, source)
        fields = tuple(field for field in fields if field not in hidden)
        return Compiled(name, source, sandbox.compiled(tree), fields, whole_fields, whole_row)
    except jinja2.TemplateSyntaxError as error:
        raise SoftPromptError(
            f"{name}, line {error.lineno}: {error.message}",
            why=f"it reads {source!r}" if len(source) <= 300 else f"it begins with {source[:300]!r}",
            fix=_syntax_fix(source),
        ) from None
    except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as error:
        deep = isinstance(error, (RecursionError, MemoryError, SyntaxError))
        raise SoftPromptError(
            f"{name} cannot be compiled",
            why="its parts are nested too deeply" if deep else str(error),
            fix="make the template simpler",
        ) from None


def _syntax_fix(source: str) -> str:
    for inner in re.findall(r"\{\{\s*(.*?)\s*\}\}", source):
        if re.fullmatch(r"[^\W\d][\w ./:&?#-]*", inner) and not inner.isidentifier():
            return f"a field whose name is no single word is written {of_row(inner)}"
    return "fields are written {{ name }}; text that holds '{{' goes between {% raw %} and {% endraw %}"


def _names(tree: nodes.Template, source: str) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Return (fields, fields written as they are, whether it reads `row`).

    `row["Review text"]` and `row.text` are the fields of these names.
    """
    names = meta.find_undeclared_variables(tree)
    quoted: set[str] = set()
    whole = False
    for node in tree.find_all((nodes.Getitem, nodes.Getattr)):
        if isinstance(node.node, nodes.Name) and node.node.name == "row":
            whole = True
            if isinstance(node, nodes.Getattr):
                quoted |= set() if node.attr in dir(dict) else {node.attr}
            elif isinstance(node.arg, nodes.Const):
                quoted.add(str(node.arg.value))
    fields = (names - {"row"}) | quoted if whole else names
    # in the order of their first mention; the set's own order changes from run to run
    fields = tuple(sorted(fields, key=lambda field: (source.find(field), field)))
    written = {
        node.name
        for output in tree.find_all(nodes.Output)
        for node in output.nodes
        if isinstance(node, nodes.Name)
    }
    return fields, tuple(field for field in fields if field in written), whole
