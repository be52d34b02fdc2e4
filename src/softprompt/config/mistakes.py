"""The mistakes of one recipe, collected with their lines and reported together in one error."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from softprompt.config.schema import PREFERRED, SECTIONS, Recipe
from softprompt.config.yaml import KeyPath
from softprompt.errors import SoftPromptError, nearest


@dataclass
class Mistakes:
    """The mistakes found so far, and where each value was written: "line 4", or an override in quotes."""

    source: str
    option_names: Collection[str] = ()  # the options of all methods
    origins: dict[KeyPath, str] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)  # (origin, text)

    def add(self, origin: str, text: str) -> None:
        self.texts.append((origin, text))

    def add_invalid(self, error: ValidationError) -> None:
        """Add every mistake that pydantic reports."""
        for details in _by_value(error.errors()):
            texts = [self._message(detail) for detail in details]
            # the branches of a union follow each other: the value is wrong for each of them
            more = [f", or {detail['msg'][0].lower() + detail['msg'][1:]}" for detail in details[1:]]
            self.add(self.origin(details[0]["loc"]), texts[0] + "".join(more))

    def origin(self, path: Sequence[str | int]) -> str:
        """Return where the value at a path, or the mapping around it, was written; empty if not known."""
        for end in range(len(path), 0, -1):
            if (origin := self.origins.get(tuple(path[:end]))) is not None:
                return origin
        return ""

    def unknown_key(self, key: str, section: KeyPath, more: str = "") -> str:
        """Return a line for an unknown key, with the nearest name of its section, else of the recipe."""
        inside = list(SECTIONS[str(section[0])].model_fields) if section else list(Recipe.model_fields)
        leaves = {leaf: name for name, model in SECTIONS.items() for leaf in model.model_fields}
        leaves |= PREFERRED
        if key in leaves:
            guess: str | None = f"{leaves[key]}.{key}"
        elif (near := nearest(key, inside)) is not None:
            guess = near
        else:
            near = nearest(key, [*leaves, *self.option_names])
            guess = f"{leaves.get(near, 'method')}.{near}" if near else None
        key = key if len(key) <= 60 else key[:60] + "…"
        place = f"key '{key}' in {section[0]}" if section else f"key '{key}'"
        hint = f"; did you mean '{guess}'?" if guess else ""
        return f"unknown {place}{hint} (known: {', '.join(inside)}){more}"

    def error(self) -> SoftPromptError:
        """Return one error for all mistakes, in the order of their lines."""

        def rank(mistake: tuple[str, str]) -> tuple[int, int]:
            line = re.fullmatch(r"line (\d+)", mistake[0])
            return (0, int(line[1])) if line else (1, 0)

        def place(origin: str) -> str:
            if origin.startswith("line "):
                return f"{self.source}:{origin[5:]}: "
            return f"{origin}: " if origin else ""

        ordered = sorted(self.texts, key=rank)
        if len(ordered) == 1:
            origin, text = ordered[0]
            return SoftPromptError(place(origin) + text if origin else f"{self.source}: {text}")
        lines = "\n".join(f"  {place(origin)}{text}" for origin, text in ordered)
        return SoftPromptError(f"{self.source}: {len(ordered)} mistakes\n{lines}", fix="correct all of them")

    def _message(self, detail: Any) -> str:
        loc = tuple(detail["loc"])
        name = ".".join(str(part) for part in loc)
        kind, given = detail["type"], detail.get("input")
        if kind == "extra_forbidden":
            return self.unknown_key(str(loc[-1]), loc[:-1])
        if kind == "missing":
            if loc[0] == "data":
                return "data.train is missing: the rows to learn from (`data: FILE`, or data=FILE)"
            return f"{name} is missing"
        if kind in ("model_type", "model_attributes_type"):
            return f"{name} is a section, not {kind_of(given)}; its {keys_of(str(loc[0]))}"
        if kind == "mistake":  # of the whole recipe where it has no name
            return f"{name}: {detail['msg']}" if name else detail["msg"]
        if kind == "literal_error":
            known = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            guess = nearest(str(given), known)
            hint = f"; did you mean '{guess}'?" if guess else ""
            return f"{name}: unknown value {given!r}{hint} (known: {', '.join(known)})"
        if kind == "string_type" and isinstance(given, bool):
            return f"{name}: {str(given).lower()} is read as a truth value; put it in quotes"
        message = detail["msg"][0].lower() + detail["msg"][1:]
        shown = "its value" if loc[-1] == "token" else repr(given)
        return f"{name}: {shown if len(shown) <= 100 else shown[:99] + '…'} is wrong: {message[:300]}"


def _by_value(details: Sequence[Any]) -> list[list[Any]]:
    """Group what pydantic reports of one value for each branch of its type, without the branch's name."""
    groups: dict[Any, list[Any]] = {}
    # pydantic calls the branch of a word as `auto` "literal['auto']"; a key of a mapping has no such name
    unions = {d["loc"][:2] for d in details if len(d["loc"]) == 3 and str(d["loc"][2]).startswith("literal[")}
    for number, detail in enumerate(details):
        is_branch = len(detail["loc"]) == 3 and detail["loc"][:2] in unions
        key = detail["loc"][:2] if is_branch else number
        groups.setdefault(key, []).append({**detail, "loc": key} if is_branch else detail)
    return list(groups.values())


def kind_of(value: Any) -> str:
    """Name the kind of a value, with the value itself if it is short."""
    names = {str: "text", list: "a list", dict: "a mapping", bool: "a truth value", type(None): "nothing"}
    short = isinstance(value, (str, int, float)) and len(str(value)) <= 40 and "\n" not in str(value)
    shown = f" ({value!r})" if short else ""  # a longer text may be the content of a whole file
    kind = "a number" if isinstance(value, (int, float)) else type(value).__name__
    return names.get(type(value), kind) + shown


def keys_of(section: str) -> str:
    return "keys: " + ", ".join(SECTIONS[section].model_fields)
