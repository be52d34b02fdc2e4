"""Recipes from YAML files, from mappings, and with settings changed.

A recipe is read in three steps: YAML becomes plain values plus the line of every key; shorthands
(`method: prefix-tuning`) and overrides are written into that tree; pydantic checks the whole tree.
Mistakes of all three are reported together, each with its line and the nearest known name.

What a recipe holds is in `softprompt.config.schema`. Nothing heavy is imported: the command line loads this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from softprompt._system.paths import expanded
from softprompt._system.secrets import without_secrets
from softprompt.config.mistakes import Mistakes, keys_of, kind_of
from softprompt.config.recipe_paths import resolve_paths
from softprompt.config.schema import MOVED, PREFERRED, SECTIONS, SHORTHAND, Recipe
from softprompt.config.sections.track import track_section
from softprompt.config.text import read_recipe
from softprompt.config.yaml import KeyPath, Reading, TooMuchError, read_value
from softprompt.errors import SoftPromptError, nearest

__all__ = ["Recipe", "load_recipe", "recipe_from_dict"]


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, method_option_names: Collection[str] = ()
) -> Recipe:
    """Read a YAML recipe and apply `key=value` overrides; of two for the same key the last one wins.

    A key is dotted (`train.lr`), a section with a shorthand (`method=prefix-tuning`, `base=lora`,
    `data=FILE`), the name of one setting (`steps=100`; `lr` means `train.lr`), or an option of the
    method if `method_option_names` holds it. Values are YAML. Relative paths in the file belong to the
    recipe's folder, those of an override to the working directory; `~` and `$NAME` are expanded.

    Raises SoftPromptError with every mistake, each with its line (or override) and the nearest name.
    """
    path = Path(expanded(path))
    draft = _Draft(Mistakes(str(path), method_option_names))
    draft.read_yaml(read_recipe(path))
    return draft.finish(path.parent, overrides)


def recipe_from_dict(
    mapping: Mapping[str, Any],
    base_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    method_option_names: Collection[str] = (),
) -> Recipe:
    """Make a recipe from a mapping; relative paths belong to `base_dir` (default: the working directory).

    Overrides and errors are those of `load_recipe`.
    """
    tree = {key: dict(v) if isinstance(v, Mapping) else v for key, v in mapping.items()}
    draft = _Draft(Mistakes("recipe", method_option_names), tree)
    return draft.finish(Path(base_dir or "."), overrides)


def changed(
    recipe: Recipe, settings: Mapping[str, Any], *, method_option_names: Collection[str] = ()
) -> Recipe:
    """Return the recipe with settings changed, as `Recipe.with_settings` describes."""
    tree = recipe.to_dict() | {"model": recipe.model.settings(token=True)}
    draft = _Draft(Mistakes("recipe", method_option_names), tree)
    for key, value in settings.items():
        draft.change(key, value, _quoted(f"{key}={value}"))
    return draft.finish(Path("."))


@dataclass
class _Draft:
    """A recipe before it is checked: plain values, and the mistakes found so far."""

    mistakes: Mistakes
    tree: dict[Any, Any] = field(default_factory=dict)

    def read_yaml(self, text: str) -> None:
        source = self.mistakes.source
        value = Reading(self.mistakes.origins, self.mistakes.texts).document(text, source)
        if not isinstance(value, dict):
            raise SoftPromptError(
                f"{source}: a recipe is a mapping of keys, not {kind_of(value)}",
                fix=f"write 'key: value' lines; keys: {', '.join(Recipe.model_fields)}",
            )
        self.tree = value

    def finish(self, base_dir: Path, overrides: Sequence[str] = ()) -> Recipe:
        """Apply the overrides and check the whole. Raises SoftPromptError for all mistakes together."""
        self._expand_shorthands()
        for text in overrides:
            self._override(text)
        resolve_paths(self.tree, base_dir, self.mistakes)
        recipe = None
        try:
            recipe = Recipe.model_validate(self.tree)
        except ValidationError as error:
            self.mistakes.add_invalid(error)
        if recipe is None or self.mistakes.texts:
            raise self.mistakes.error()
        return recipe

    def _expand_shorthands(self) -> None:
        """Write `method: NAME` as `method: {name: NAME}`."""
        for section in SECTIONS:
            if section not in self.tree:
                continue
            value, leaf = self.tree[section], SHORTHAND.get(section)
            if section == "track":
                self.tree[section] = track_section(value)
            elif value is None and section != "model":  # `train:` with every line below it commented out
                self.tree[section] = {}
            elif leaf and not isinstance(value, (dict, list)):
                self.tree[section] = {leaf: value}
        self._move_keys()

    def _move_keys(self) -> None:
        """Write a key under the section that it is kept in."""
        for path, kept in MOVED.items():
            section = self.tree.get(path[0])
            if not isinstance(section, dict) or path[1] not in section:
                continue
            self.tree[path[0]] = section = dict(section)
            value, origin = section.pop(path[1]), self.mistakes.origin(path)
            there = self.tree.get(kept[0])
            if isinstance(there, dict) and there.get(kept[1], value) != value:
                self.mistakes.add(origin, f"{'.'.join(path)} and {'.'.join(kept)} are one setting; write one")
            else:
                self._put(kept, value, origin)

    def _override(self, text: str) -> None:
        origin = _quoted(text)
        key, equals, written = text.partition("=")
        key = key.strip()
        if not equals or not key:
            self.mistakes.add(origin, "an override is written key=value, as in train.lr=1e-2")
        elif (target := self._target(key, origin)) is not None:
            self._set(key, target, _value(written, target), origin)

    def change(self, key: str, value: Any, origin: str) -> None:
        """Set what a key means to a plain value."""
        if (target := self._target(key, origin)) is not None:
            self._set(key, target, value, origin)

    def _set(self, key: str, target: KeyPath, value: Any, origin: str) -> None:
        if len(target) == 1 and target[0] in SHORTHAND and not isinstance(value, dict):
            if target[0] == "model":  # the other settings belong to the model that is replaced
                self.tree["model"] = {}
            target = (target[0], SHORTHAND[str(target[0])])
        if target == ("track",):
            return self._put(target, track_section(value), origin)
        if len(target) != 1 or target[0] not in SECTIONS:
            self._put(target, value, origin)
        elif isinstance(value, dict):
            for leaf, item in value.items():
                self._put((*target, leaf), item, origin)
        else:
            self.mistakes.add(origin, f"'{key}' is a section; write {key}.KEY=VALUE ({keys_of(key)})")

    def _put(self, path: KeyPath, value: Any, origin: str) -> None:
        path = MOVED.get(path, path)  # type: ignore[arg-type]
        place = self.tree
        for part in path[:-1]:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[path[-1]] = value
        origins = self.mistakes.origins
        for old in [old for old in origins if old[: len(path)] == path]:
            del origins[old]
        origins[path] = origin

    def _target(self, key: str, origin: str) -> KeyPath | None:
        """Return the path of the setting that `key` names; if there is none, note a mistake, return None."""
        parts = tuple(key.split("."))
        if len(parts) > 1:
            if parts[0] in SECTIONS:
                return parts
            guess = nearest(parts[0], SECTIONS)
            hint = f"; did you mean '{guess}.{'.'.join(parts[1:])}'?" if guess else ""
            self.mistakes.add(origin, f"unknown section '{parts[0]}'{hint} (known: {', '.join(SECTIONS)})")
            return None
        option_names = self.mistakes.option_names
        owners = [name for name, section in SECTIONS.items() if key in section.model_fields]
        if key in option_names and owners:
            owners.append("method")
        if key in Recipe.model_fields and (key in SHORTHAND or key not in SECTIONS or not owners):
            return (key,)
        if key in PREFERRED:
            return (PREFERRED[key], key)
        if len(owners) == 1:
            return (owners[0], key)
        if owners:
            names = " or ".join(f"{owner}.{key}" for owner in owners)
            self.mistakes.add(origin, f"'{key}' may mean {names}; write one of them")
        elif key in option_names:
            return ("method", key)
        else:
            more = "; write method.KEY=VALUE for a method's option"
            self.mistakes.add(origin, self.mistakes.unknown_key(key, (), more))
        return None


def _quoted(text: str) -> str:
    text = without_secrets(text)
    return f"'{text}'" if len(text) <= 120 else f"'{text[:120]}…'"


def _value(written: str, target: KeyPath) -> Any:
    """Read the value of an override as YAML; keep the text where it is no YAML or no mapping can be meant."""
    try:
        value = read_value(written, target)
    except TooMuchError as error:
        name = ".".join(map(str, target))
        raise SoftPromptError(f"{name}: what is given on the command line is too much", str(error)) from None
    except yaml.YAMLError:
        return written  # so that `template.input={{ question }}` needs no quotes of YAML
    return written if isinstance(value, dict) and _takes_no_mapping(target) else value


def _takes_no_mapping(target: KeyPath) -> bool:
    """Return whether the target is a setting of the recipe (not a method's option) that is no mapping."""
    if len(target) != 2 or target[0] == "method":
        return False
    known = SECTIONS[str(target[0])].model_fields.get(str(target[1]))
    return known is None or not any(kind in str(known.annotation) for kind in ("dict", "UnseenConfig"))
