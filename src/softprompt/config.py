"""Recipes: the YAML file (and `key=value` overrides) that says what is tuned, on what, and how.

A recipe is read in three steps: YAML becomes plain values plus the line of every key; shorthands
(`method: prefix-tuning`) and overrides are written into that tree; pydantic checks the whole tree.
Mistakes of all three are reported together, each with its line and the nearest known name.

This file does NOT know which methods, metrics or models exist (their registries check the names),
reads no data, and imports nothing heavy: the command line loads it at start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from softprompt.errors import SoftPromptError, nearest

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # a learning rate
Name = Annotated[str, Field(min_length=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class _Section(BaseModel):
    # Frozen: a recipe is fingerprinted, so it must not change under a run. Numbers become text where
    # text is asked for, so that `labels: [0, 1]` needs no quotes.
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class DataConfig(_Section):
    """Where rows come from. `train`, `dev`, `test`: a file, a folder or `hf:NAME[:SPLIT]`."""

    train: Name
    dev: Name | None = None
    test: Name | None = None
    prompt_field: Name | None = None  # the column that names each row's prompt
    limit: Positive | None = None  # train rows kept, after a seeded shuffle
    dev_fraction: Inside = 0.1  # carved from train where `dev` is not given
    dev_limit: Positive | None = 500
    max_input_tokens: Positive | None = None  # longer inputs lose their first tokens
    max_target_tokens: Positive | None = None  # longer generation targets lose their last tokens


class TemplateConfig(_Section):
    """How a row becomes text: Jinja2 over the row's fields, used literally (spaces are kept)."""

    input: Name = "{{ input }}"
    target: Name = "{{ target }}"
    chat: bool = False  # wrap the input in the model's own chat template
    system: str | None = None

    @model_validator(mode="after")
    def _system_needs_chat(self) -> TemplateConfig:
        if self.system is not None and not self.chat:
            raise _mistake("`system` has an effect only with `chat: true`; else put the text into `input`")
        return self


class TaskConfig(_Section):
    """What is predicted, and how it is scored."""

    kind: Literal["generation", "classification", "choice"] = "generation"
    labels: list[Name] | None = None  # classification; None: the distinct targets of the training rows
    choices: Name | None = None  # choice: the field that holds the row's list of choices
    references: Name | None = None  # generation: the field that holds a list of reference texts
    metrics: list[Name] | None = None
    max_new_tokens: Positive = 64

    @model_validator(mode="after")
    def _fields_fit_kind(self) -> TaskConfig:
        if self.kind == "choice" and self.choices is None:
            raise _mistake("`kind: choice` needs `choices`, the field that holds a row's list of choices")
        if self.kind != "choice" and self.choices is not None:
            raise _mistake(f"`choices` belongs to `kind: choice`, but kind is {self.kind}")
        if self.labels is None:
            return self
        if self.kind != "classification":
            raise _mistake(f"`labels` belongs to `kind: classification`, but kind is {self.kind}")
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            raise _mistake(f"`labels` holds {', '.join(map(repr, twice))} more than once")
        if len(self.labels) < 2:
            raise _mistake("`labels` needs at least two labels")
        return self


class MethodConfig(_Section):
    """A method by its published name; every other key is an option, checked by the method registry."""

    model_config = ConfigDict(extra="allow")
    name: Name = "prompt-tuning"

    def options(self) -> dict[str, Any]:
        """The method's own options, as written (a copy)."""
        return dict(self.model_extra or {})


class BaseConfig(_Section):
    """What happens to the base model's weights; rank, alpha and targets are those of LoRA."""

    mode: Literal["frozen", "lora", "full"] = "frozen"
    rank: Positive = 8
    alpha: Positive = 16
    targets: list[Name] | None = None
    lr: Rate | None = None


class TrainConfig(_Section):
    """Optimisation. `lr` None means the method's own default."""

    steps: Positive = 200
    batch_size: Positive = 32
    lr: Rate | None = None
    weight_decay: NonNegative = 0.0
    warmup: Fraction = 0.05  # fraction of the steps
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip: NonNegative = 1.0  # largest gradient norm; 0 does not clip
    eval_every: Positive | None = None
    patience: Positive | None = None  # evaluations without a new best before training stops
    seed: Seed = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    cache: Literal["auto", "ram", "off"] = "auto"
    cache_budget_mb: Positive | None = None
    threads: Positive | None = None
    gradient_checkpointing: bool = False


class Recipe(_Section):
    """Everything that decides a run. Made by `load_recipe` or `recipe_from_dict`."""

    model: Name = "smollm2"
    data: DataConfig
    template: TemplateConfig = TemplateConfig()
    task: TaskConfig = TaskConfig()
    method: MethodConfig = MethodConfig()
    base: BaseConfig = BaseConfig()
    train: TrainConfig = TrainConfig()
    output: Name = "runs/prompt"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `recipe_from_dict(recipe.to_dict())` gives an equal recipe."""
        return self.model_dump(mode="json")

    def fingerprint(self) -> str:
        """sha256 (hex) of the recipe without `output`: equal for runs that must train the same prompt."""
        content = {key: value for key, value in self.to_dict().items() if key != "output"}
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


SECTIONS: dict[str, type[_Section]] = {
    "data": DataConfig,
    "template": TemplateConfig,
    "task": TaskConfig,
    "method": MethodConfig,
    "base": BaseConfig,
    "train": TrainConfig,
}
SHORTHAND = {"data": "train", "task": "kind", "method": "name", "base": "mode"}  # `method: NAME`
PREFERRED = {"lr": "train"}  # a leaf name of several sections, and the one meant when none is named
AS_WRITTEN = ("task", "labels")  # `labels: [yes, 1.0]` stays text, exactly as written
KeyPath = tuple[str | int, ...]  # where a value stands in the tree


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, method_option_names: Collection[str] = ()
) -> Recipe:
    """Read a YAML recipe and apply `key=value` overrides, the last of which win.

    A key is dotted (`train.lr`), a section with a shorthand (`method=prefix-tuning`, `base=lora`,
    `data=FILE`), the name of one setting (`steps=100`; `lr` means `train.lr`), or an option of the
    method if `method_option_names` holds it. Values are YAML. Relative paths in `data` belong to the
    recipe's folder, or to the working directory where they come from an override.

    Raises SoftPromptError with every mistake, each with its line (or override) and the nearest name.
    """
    path = Path(path)
    draft = _Draft(str(path), set(method_option_names))
    draft.read_yaml(_read_text(path))
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
    """The same from a dict; relative paths in `data` belong to `base_dir` (default: working directory)."""
    draft = _Draft("recipe", set(method_option_names))
    draft.tree = {key: dict(v) if isinstance(v, Mapping) else v for key, v in mapping.items()}
    draft.normalise()
    for override in overrides:
        draft.override(override)
    return draft.finish(Path(base_dir or "."))


@dataclass
class _Draft:
    """A recipe on its way: plain values, where each came from, and the mistakes found so far."""

    source: str
    option_names: set[str]
    tree: dict[Any, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)  # path -> "line 4" or "'lr=1e-2'"
    mistakes: list[tuple[str, str]] = field(default_factory=list)  # (origin, text)
    written: dict[int, set[int]] = field(default_factory=dict)

    def read_yaml(self, text: str) -> None:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            value = {} if root is None else self._plain(loader, root, (), ())
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{self.source}:{mark.line + 1}" if mark else self.source
            raise SoftPromptError(
                f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}",
                why=f"column {mark.column + 1}" if mark else "",
                fix="check the indentation, and quote values that hold ': ' or '#' or begin with '{'",
            ) from None
        if not isinstance(value, dict):
            raise SoftPromptError(
                f"{self.source}: a recipe is a mapping of keys, not {_kind(value)}",
                fix=f"write 'key: value' lines; keys: {', '.join(Recipe.model_fields)}",
            )
        self.tree = value

    def _plain(self, loader: _Loader, node: yaml.Node, path: KeyPath, above: tuple[yaml.Node, ...]) -> Any:
        """A YAML node as plain values; notes the line of every key and list item."""
        if node in above:
            raise yaml.constructor.ConstructorError(None, None, "an alias that holds itself", node.start_mark)
        above = (*above, node)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.origins[(*path, index)] = f"line {item.start_mark.line + 1}"
            return [self._plain(loader, item, (*path, i), above) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            # Only keys written here count as duplicates, not those merged in by `<<`; remembered, for an
            # anchored mapping is seen again, already flattened, at each alias.
            written = self.written.setdefault(id(node), {id(key) for key, _ in node.value})
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
                result[key] = self._plain(loader, value_node, (*path, key), above)
            return result
        if path[:2] == AS_WRITTEN and len(path) == 3:
            return node.value
        return loader.construct_object(node)

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
        origin = f"'{text}'"
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
            loader = _Loader(written)
            node = loader.get_single_node()
            value = written if node is None else _Draft("", set())._plain(loader, node, target, ())
        except yaml.YAMLError:
            return written  # so that `template.input={{ question }}` needs no quotes of YAML
        leaf_of_text = len(target) == 2 and target[0] != "method"
        return written if isinstance(value, dict) and leaf_of_text else value

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

    def _resolve_paths(self, base_dir: Path) -> None:
        data = self.tree.get("data")
        if not isinstance(data, dict):
            return
        for key in ("train", "dev", "test"):
            value = data.get(key)
            if isinstance(value, str) and value and not value.startswith("hf:"):
                from_override = self._origin(("data", key)).startswith("'")
                folder = Path(".") if from_override else base_dir
                # Absolute, so that a recipe kept in an artifact still finds its rows from elsewhere.
                data[key] = os.path.abspath(folder / Path(value).expanduser())

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
        return f"{name}: {given!r} is wrong: {message}"

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


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        folder = path.parent
        names = [p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml")] if folder.is_dir() else []
        guess = nearest(path.name, names)
        raise SoftPromptError(
            f"no recipe at '{path}'" + (f"; did you mean '{folder / guess}'?" if guess else ""),
            why=f"the folder '{folder}' " + ("has no such file" if folder.is_dir() else "does not exist"),
            fix="softprompt init writes a first recipe",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SoftPromptError(f"cannot read the recipe '{path}'", str(reason), "give a YAML file") from None


def _mistake(text: str) -> PydanticCustomError:
    # Braces would be read as placeholders of pydantic's message template.
    return PydanticCustomError("mistake", "{text}", {"text": text})


def _kind(value: Any) -> str:
    names = {str: "text", list: "a list", dict: "a mapping", bool: "a truth value", type(None): "nothing"}
    shown = f" ({value!r})" if isinstance(value, (str, int, float)) else ""
    return names.get(type(value), "a number") + shown


def _keys(section: str) -> str:
    return "keys: " + ", ".join(SECTIONS[section].model_fields)
