"""A recipe's keys are read from the schema; remarks are the comments beside the fields."""

from __future__ import annotations

import inspect
import io
import re
import tokenize
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from softprompt.config.schema import Recipe
from softprompt.config.sections.compare import UnseenConfig
from softprompt.config.sections.task import TeacherText
from softprompt.config.sections.track import TrackerConfig

from .tables import cell, code, table

#: Sections within sections, by the title under which they are shown.
INNER: dict[str, type[BaseModel]] = {
    "compare.unseen": UnseenConfig,
    "teacher.texts": TeacherText,
    "track.NAME": TrackerConfig,
}


def keys() -> str:
    """Return Markdown with every section of a recipe and each of its keys."""
    parts = []
    for name, field in Recipe.model_fields.items():
        section = _section(field.annotation)
        if section is None:
            parts.append(f"## {name}\n\n{_keys(Recipe, [name])}")
            continue
        parts.append(f"## {name}\n\n{_about(section)}{_keys(section)}")
        parts += [f"### {title}\n\n{_about(inner)}{_keys(inner)}" for title, inner in _inner(name)]
    return "\n".join(parts)


def _inner(section: str) -> list[tuple[str, type[BaseModel]]]:
    return [(title, inner) for title, inner in INNER.items() if title.split(".")[0] == section]


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _about(section: type[BaseModel]) -> str:
    return f"{inspect.cleandoc(section.__doc__)}\n\n" if section.__doc__ else ""


def _keys(section: type[BaseModel], only: list[str] | None = None) -> str:
    remarks = _remarks(section)
    schema = section.model_json_schema(mode="validation")
    fields = {name: field for name, field in section.model_fields.items() if only is None or name in only}
    rows = []
    for name, field in fields.items():
        must = field.is_required()
        default = "required" if must or field.default is PydanticUndefined else code(_plain(field.default))
        kind = _type(schema["properties"][name])
        rows.append([f"`{name}`", code(kind), default, cell(remarks.get(name, ""))])
    return table(["key", "type", "default", "remark"], rows)


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def _type(schema: dict[str, Any]) -> str:
    """Return the type of a key as the JSON schema has it, in short."""
    if "$ref" in schema:
        return schema["$ref"].split("/")[-1].removesuffix("Config").lower()
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_type(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"mapping of {_type(inner)}" if isinstance(inner, dict) and inner else "mapping"
    words = {"integer": "integer", "number": "number", "string": "text", "boolean": "true | false"}
    return words.get(kind, kind) + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema and schema[key] < 1e9]
    return f" {', '.join(limits)}" if limits else ""


def _remarks(section: type[BaseModel]) -> dict[str, str]:
    """Return the comment beside or above each field of a section, by the field's name."""
    lines = inspect.getsource(section).splitlines()
    comments = {
        token.start[0]: (token.string.lstrip("# "), token.line.strip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines) + "\n").readline)
        if token.type == tokenize.COMMENT
    }
    remarks: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if (match := re.match(r"    (\w+): ", line)) is None:
            continue
        above, row = [], number - 1
        while row in comments and comments[row][1]:
            above.insert(0, comments[row][0])
            row -= 1
        beside = [comments[number][0]] if number in comments else []
        remarks[match[1]] = " ".join(beside or above)
    return remarks
