"""Reads the text of a recipe. An error says what another file is, and quotes nothing of it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from .._system.files import check_pulled
from .._system.paths import COMPRESSED, ROWS, kind_of, shown
from ..errors import SoftPromptError, nearest

MAX_BYTES = 200_000
FIRST = "softprompt init writes a first recipe"


def read_recipe(path: Path) -> str:
    """Read the text of a recipe. Raises SoftPromptError for another file, saying what it is."""
    kind = kind_of(path, "the recipe")
    if kind == "missing":
        raise _missing(path)
    if kind == "folder":
        raise _folder(path)
    if kind != "file":
        raise SoftPromptError(f"'{path}' is a {kind}, not a recipe", fix="write the recipe to a file")
    check_pulled(path)
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    table = suffixes and suffixes[-1] in ROWS and suffixes[-1] != ".json"  # JSON may be a recipe too
    if table or (suffixes and suffixes[-1] in COMPRESSED and suffixes[0] in ROWS):
        raise _rows(path)
    if suffixes and suffixes[-1] in (".safetensors", ".gguf", ".bin", ".pt"):
        fix = f"name the model in a recipe: model: {path}"
        raise SoftPromptError(f"'{path}' is a model's file, not a recipe", "a recipe is a YAML file", fix)
    if (size := path.stat().st_size) > MAX_BYTES:
        why = f"it has {size:,} bytes; a recipe has at most {MAX_BYTES:,}"
        raise SoftPromptError(f"'{path}' is too long to be a recipe", why, FIRST)
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SoftPromptError(f"cannot read the recipe '{path}'", str(reason), "give a YAML file") from None
    if "\0" in text:
        raise SoftPromptError(f"'{path}' is a binary file, not a recipe", "a recipe is a YAML file", FIRST)
    if (kind := _other(text)) == "rows":
        raise _rows(path)
    if kind:
        raise SoftPromptError(f"'{path}' is {kind}, not a recipe", "a recipe is a YAML file", FIRST)
    return text


def _other(text: str) -> str | None:
    """Return what a text is that is no recipe, judged by its beginning."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")][:3]
    if not lines:
        return None
    if re.match(r"\s*<(?!<)", lines[0]):  # << merges mappings
        return "a page (such as a report)"
    try:
        value = json.loads(text if text.lstrip()[0] == "[" else lines[0])
        if isinstance(value, list) or (len(lines) > 1 and isinstance(value, dict)):
            return "rows"
    except (ValueError, RecursionError):
        pass
    for mark in ",;\t|":
        cells = [line.count(mark) for line in lines]
        is_table = len(lines) > 1 and cells[0] and len(set(cells)) == 1
        if is_table and ":" not in lines[0] and lines[0][0] not in "-[{":
            return "rows"
    return None


def _rows(path: Path) -> SoftPromptError:
    named = shlex.quote(str(path))
    return SoftPromptError(
        f"'{path}' holds rows; a recipe is a YAML file that names them",
        why="a recipe says which field is the input, which is the target, and how to train",
        fix=f"softprompt init --rows {named} writes one for these rows",
    )


def _folder(path: Path) -> SoftPromptError:
    def there(*names: str) -> bool:
        return any((path / name).exists() for name in names)

    named = shlex.quote(str(path))
    if there("recipe.yaml"):
        kind, fix = "a folder", f"name the file: {path / 'recipe.yaml'}"
    elif there("softprompt.json"):
        kind, fix = (
            "a tuned prompt",
            f"softprompt inspect {named} shows it; softprompt tune takes a recipe",
        )
    elif there("study.json", "results.jsonl"):
        kind, fix = "a comparison", f"softprompt report {named} shows it"
    elif there("config.json", "adapter_config.json"):
        kind, fix = "a model", f"name it in a recipe (model: {path}), or on the command line: model={path}"
    elif any(file.suffix.lower() in ROWS for file in path.iterdir()):
        kind, fix = "a folder of rows", f"softprompt init --rows {named} writes a recipe for them"
    else:
        kind, fix = "a folder", FIRST
    return SoftPromptError(f"'{path}' is {kind}, not a recipe", why="a recipe is a YAML file", fix=fix)


def _missing(path: Path) -> SoftPromptError:
    folder = path.parent
    names = [p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml")] if folder.is_dir() else []
    guess = nearest(path.name, names)
    return SoftPromptError(
        f"no recipe at '{shown(path)}'" + (f"; did you mean '{folder / guess}'?" if guess else ""),
        why=f"the folder '{folder}' " + ("has no such file" if folder.is_dir() else "does not exist"),
        fix=FIRST,
    )
