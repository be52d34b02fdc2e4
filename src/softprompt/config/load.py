"""Recipes from files: the YAML (and `key=value` overrides) that says what is tuned, on what, and how.

A recipe is read in three steps: YAML becomes plain values plus the line of every key; shorthands
(`method: prefix-tuning`) and overrides are written into that tree; pydantic checks the whole tree.
Mistakes of all three are reported together, each with its line and the nearest known name.

What a recipe holds is in `softprompt.config.schema`. Nothing heavy is imported: the command line loads this.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from softprompt._system.paths import expanded, shown, unexpanded, unusable
from softprompt.config.schema import PREFERRED, SECTIONS, SHORTHAND, Recipe
from softprompt.config.text import read_recipe
from softprompt.config.yaml import KeyPath, Reading, TooMuchError, read_value
from softprompt.errors import SoftPromptError, nearest

__all__ = ["Recipe", "load_recipe", "recipe_from_dict"]


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, method_option_names: Collection[str] = ()
) -> Recipe:
    """Read a YAML recipe and apply `key=value` overrides, the last of which win.

    A key is dotted (`train.lr`), a section with a shorthand (`method=prefix-tuning`, `base=lora`,
    `data=FILE`), the name of one setting (`steps=100`; `lr` means `train.lr`), or an option of the
    method if `method_option_names` holds it. Values are YAML. Relative paths in the file belong to the
    recipe's folder, those of an override to the working directory; `~` and `$NAME` are written out.

    Raises SoftPromptError with every mistake, each with its line (or override) and the nearest name.
    """
    path = Path(expanded(path))
    draft = _Draft(str(path), set(method_option_names))
    draft.read_yaml(read_recipe(path))
    draft.normalise()
    for override in overrides:
        draft.override(override)
    return draft.finish(path.parent)


def recipe_from_dict(
    mapping: Mapping[str, Any],
    base_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    method_option_names: Collection[str] = (),
) -> Recipe:
    """The same from a dict; relative paths belong to `base_dir` (default: the working directory)."""
    draft = _Draft("recipe", set(method_option_names))
    draft.tree = {key: dict(v) if isinstance(v, Mapping) else v for key, v in mapping.items()}
    draft.normalise()
    for override in overrides:
        draft.override(override)
    return draft.finish(Path(base_dir or "."))


#: Settings that are paths; into the last three is written.
PATHS: tuple[tuple[str, ...], ...] = (
    ("data", "train"),
    ("data", "dev"),
    ("data", "test"),
    ("compare", "unseen", "file"),
    ("train", "cache_folder"),
    ("output",),
    ("compare", "output"),
)
WRITTEN = PATHS[-3:]


@dataclass
class _Draft:
    """A recipe on its way: plain values, where each came from, and the mistakes found so far."""

    source: str
    option_names: set[str]
    tree: dict[Any, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)  # path -> "line 4" or "'lr=1e-2'"
    mistakes: list[tuple[str, str]] = field(default_factory=list)  # (origin, text)

    def read_yaml(self, text: str) -> None:
        reading = Reading(self.origins, self.mistakes)
        value = reading.document(text, self.source)
        if not isinstance(value, dict):
            raise SoftPromptError(
                f"{self.source}: a recipe is a mapping of keys, not {_kind(value)}",
                fix=f"write 'key: value' lines; keys: {', '.join(Recipe.model_fields)}",
            )
        self.tree = value

    def normalise(self) -> None:
        """Write shorthands out: `method: NAME` becomes `method: {name: NAME}`."""
        for section in SECTIONS:
            if section not in self.tree:
                continue
            value, leaf = self.tree[section], SHORTHAND.get(section)
            if value is None:  # `train:` with every line below it commented out
                self.tree[section] = {}
            elif leaf and not isinstance(value, (dict, list)):
                self.tree[section] = {leaf: value}

    def override(self, text: str) -> None:
        origin = f"'{text}'" if len(text) <= 120 else f"'{text[:120]}…'"
        key, equals, written = text.partition("=")
        key = key.strip()
        if not equals or not key:
            self.mistakes.append((origin, "an override is written key=value, as in train.lr=1e-2"))
            return
        target = self._target(key, origin)
        if target is None:
            return
        value = self._override_value(written, target)
        if len(target) == 1 and target[0] in SHORTHAND and not isinstance(value, dict):
            target = (target[0], SHORTHAND[str(target[0])])
        if len(target) == 1 and target[0] in SECTIONS:
            if not isinstance(value, dict):
                self.mistakes.append((origin, f"'{key}' is a section; write {key}.KEY=VALUE ({_keys(key)})"))
                return
            for leaf, item in value.items():
                self._put((*target, leaf), item, origin)
        else:
            self._put(target, value, origin)

    def _override_value(self, written: str, target: KeyPath) -> Any:
        """The value as YAML; as it stands where it is no YAML, or a mapping where none can be."""
        try:
            value = read_value(written, target)
        except TooMuchError as error:
            name = ".".join(map(str, target))
            raise SoftPromptError(
                f"{name}: what is given on the command line is too much", str(error)
            ) from None
        except yaml.YAMLError:
            return written  # so that `template.input={{ question }}` needs no quotes of YAML
        return written if isinstance(value, dict) and _holds_no_mapping(target) else value

    def _put(self, path: KeyPath, value: Any, origin: str) -> None:
        place = self.tree
        for part in path[:-1]:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[path[-1]] = value
        self.origins = {old: line for old, line in self.origins.items() if old[: len(path)] != path}
        self.origins[path] = origin

    def _target(self, key: str, origin: str) -> KeyPath | None:
        """The path that an override's key means; None (and a mistake noted) where it means none."""
        parts = tuple(key.split("."))
        if len(parts) > 1:
            if parts[0] in SECTIONS:
                return parts
            guess = nearest(parts[0], SECTIONS)
            hint = f"; did you mean '{guess}.{'.'.join(parts[1:])}'?" if guess else ""
            known = ", ".join(SECTIONS)
            self.mistakes.append((origin, f"unknown section '{parts[0]}'{hint} (known: {known})"))
            return None
        owners = [name for name, section in SECTIONS.items() if key in section.model_fields]
        if key in self.option_names and owners:
            owners.append("method")
        if key in Recipe.model_fields and (key in SHORTHAND or key not in SECTIONS or not owners):
            return (key,)
        if key in PREFERRED:
            return (PREFERRED[key], key)
        if len(owners) == 1:
            return (owners[0], key)
        if owners:
            names = " or ".join(f"{owner}.{key}" for owner in owners)
            self.mistakes.append((origin, f"'{key}' may mean {names}; write one of them"))
        elif key in self.option_names:
            return ("method", key)
        else:
            more = "; write method.KEY=VALUE for a method's option"
            self.mistakes.append((origin, self._unknown_key(key, (), more)))
        return None

    def _unknown_key(self, key: str, section: KeyPath, more: str = "") -> str:
        """One line for an unknown key: the nearest name of its section, else of the whole recipe."""
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

    def finish(self, base_dir: Path) -> Recipe:
        recipe = None
        self._resolve_paths(base_dir)
        try:
            recipe = Recipe.model_validate(self.tree)
        except ValidationError as error:
            for detail in error.errors():
                self.mistakes.append((self._origin(detail["loc"]), self._message(detail)))
        if recipe is None or self.mistakes:
            raise self._error()
        return recipe

    def _resolve_model(self, base_dir: Path) -> None:
        """A model that is a folder or a file, or is written as one, is that of the recipe's folder."""
        name = self.tree.get("model")
        if not isinstance(name, str) or name in ("", Recipe.model_fields["model"].default):
            return
        from_override = self._origin(("model",)).startswith("'")
        folder = Path(".") if from_override else base_dir
        path = Path(os.path.abspath(folder / expanded(name)))
        if path.exists() or (not from_override and name.startswith(("./", "../"))):
            self.tree["model"] = str(path)

    def _resolve_paths(self, base_dir: Path) -> None:
        """Relative paths belong to the recipe's folder, those of an override to the working directory."""
        self._resolve_model(base_dir)
        compare = self.tree.get("compare")
        if (
            isinstance(compare, dict)
            and isinstance(unseen := compare.get("unseen"), str)
            and unseen not in ("", "auto")
        ):
            compare["unseen"] = {"file": unseen}
            self.origins |= {("compare", "unseen", "file"): self._origin(("compare", "unseen"))}
        if "output" not in self.tree and str(base_dir) != ".":
            self.tree["output"] = Recipe.model_fields["output"].default
        for path in PATHS:
            place: Any = self.tree
            for part in path[:-1]:
                place = place.get(part) if isinstance(place, dict) else None
            value = place.get(path[-1]) if isinstance(place, dict) else None
            if not isinstance(value, str) or not value or value.startswith("hf:"):
                continue
            assert isinstance(place, dict)
            if place is not self.tree and place is not self.tree.get(path[0]):
                place = self.tree[path[0]][path[1]] = dict(place)  # a caller's own mapping stays as it is
            origin = self._origin(path)
            folder = Path(".") if origin.startswith("'") else base_dir
            value = expanded(value)
            if path in WRITTEN and (odd := unexpanded(value)):
                self.mistakes.append((origin, f"{'.'.join(path)}: {odd} stands for no folder here"))
            # What is read is absolute, so that a recipe kept in an artifact finds its rows from elsewhere;
            # what is written is as short as it was given.
            joined = os.path.normpath(folder / value)
            if path in WRITTEN and (why := unusable(joined)):
                self.mistakes.append(
                    (origin, f"{'.'.join(path)}: '{shown(joined)}' cannot be a folder: {why}")
                )
            place[path[-1]] = joined if path in WRITTEN else os.path.abspath(joined)

    def _origin(self, path: Sequence[str | int]) -> str:
        for end in range(len(path), 0, -1):
            if (found := self.origins.get(tuple(path[:end]))) is not None:
                return found
        return ""

    def _message(self, detail: Any) -> str:
        loc = tuple(detail["loc"])
        name = ".".join(str(part) for part in loc)
        kind, given = detail["type"], detail.get("input")
        if kind == "extra_forbidden":
            return self._unknown_key(str(loc[-1]), loc[:-1])
        if kind == "missing":
            if loc[0] == "data":
                return "data.train is missing: the rows to learn from (`data: FILE`, or data=FILE)"
            return f"{name} is missing"
        if kind in ("model_type", "model_attributes_type"):
            keys = ", ".join(SECTIONS[str(loc[0])].model_fields)
            return f"{name} is a section, not {_kind(given)}; its keys: {keys}"
        if kind == "mistake":
            return f"{name}: {detail['msg']}"
        if kind == "literal_error":
            known = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            guess = nearest(str(given), known)
            hint = f"; did you mean '{guess}'?" if guess else ""
            return f"{name}: unknown value {given!r}{hint} (known: {', '.join(known)})"
        if kind == "string_type" and isinstance(given, bool):
            return f"{name}: {str(given).lower()} is read as a truth value; put it in quotes"
        message = detail["msg"][0].lower() + detail["msg"][1:]
        shown = repr(given)
        return f"{name}: {shown if len(shown) <= 100 else shown[:99] + '…'} is wrong: {message[:300]}"

    def _error(self) -> SoftPromptError:
        def rank(mistake: tuple[str, str]) -> tuple[int, int]:
            line = re.fullmatch(r"line (\d+)", mistake[0])
            return (0, int(line[1])) if line else (1, 0)

        def place(origin: str) -> str:
            if origin.startswith("line "):
                return f"{self.source}:{origin[5:]}: "
            return f"{origin}: " if origin else ""

        ordered = sorted(self.mistakes, key=rank)
        if len(ordered) == 1:
            origin, text = ordered[0]
            return SoftPromptError(place(origin) + text if origin else f"{self.source}: {text}")
        lines = "\n".join(f"  {place(origin)}{text}" for origin, text in ordered)
        return SoftPromptError(f"{self.source}: {len(ordered)} mistakes\n{lines}", fix="mend them all")


def _holds_no_mapping(target: KeyPath) -> bool:
    """Whether the target is a setting of the recipe's own (not a method's option) that takes no mapping."""
    if len(target) != 2 or target[0] == "method":
        return False
    known = SECTIONS[str(target[0])].model_fields.get(str(target[1]))
    return known is None or not any(kind in str(known.annotation) for kind in ("dict", "UnseenConfig"))


def _kind(value: Any) -> str:
    names = {str: "text", list: "a list", dict: "a mapping", bool: "a truth value", type(None): "nothing"}
    short = isinstance(value, (str, int, float)) and len(str(value)) <= 40 and "\n" not in str(value)
    shown = f" ({value!r})" if short else ""  # what is longer may be a file's whole content
    kind = "a number" if isinstance(value, (int, float)) else type(value).__name__
    return names.get(type(value), kind) + shown


def _keys(section: str) -> str:
    return "keys: " + ", ".join(SECTIONS[section].model_fields)
