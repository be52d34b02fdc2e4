"""Resolves the paths in a recipe; `~` and `$NAME` are expanded.

Relative ones belong to the recipe's folder, those of an override to the working directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from softprompt._system.paths import expanded, shown, unexpanded, unusable
from softprompt.config.mistakes import Mistakes
from softprompt.config.schema import Recipe
from softprompt.config.sections.model import ModelConfig
from softprompt.config.sections.track import TrackConfig

#: Settings that are folders which the run writes to.
WRITTEN: tuple[tuple[str, ...], ...] = (
    ("train", "cache_folder"),
    ("output",),
    ("compare", "output"),
    *(("track", name, "dir") for name in TrackConfig.model_fields),
)
#: Settings that are paths.
PATHS: tuple[tuple[str, ...], ...] = (
    ("data", "train"),
    ("data", "dev"),
    ("data", "test"),
    ("teacher", "file"),
    ("train", "keep_text"),
    ("compare", "unseen", "file"),
    *WRITTEN,
)


def resolve_paths(tree: dict[Any, Any], base_dir: Path, mistakes: Mistakes) -> None:
    """Resolve all paths of a recipe's tree in place, and note those that cannot be used."""
    _resolve_model(tree, base_dir, mistakes)
    compare = tree.get("compare")
    unseen = compare.get("unseen") if isinstance(compare, dict) else None
    if isinstance(compare, dict) and isinstance(unseen, str) and unseen not in ("", "auto"):
        compare["unseen"] = {"file": unseen}
        mistakes.origins[("compare", "unseen", "file")] = mistakes.origin(("compare", "unseen"))
    if "output" not in tree and str(base_dir) != ".":
        tree["output"] = Recipe.model_fields["output"].default
    for path in (*PATHS, *_text_files(tree)):
        place: Any = tree
        for part in path[:-1]:
            place = place.get(part) if isinstance(place, dict) else None
        value = place.get(path[-1]) if isinstance(place, dict) else None
        if not isinstance(value, str) or not value or value.startswith("hf:"):
            continue
        assert isinstance(place, dict)
        if place is not tree and place is not tree.get(path[0]):
            place = _copied(tree, path[:-1])  # a caller's own mapping stays as it is
        origin = mistakes.origin(path)
        value = expanded(value)
        joined = os.path.normpath(_folder(origin, base_dir) / value)
        if path not in WRITTEN:
            # absolute, so that a recipe kept in an artifact finds its rows from any working directory
            place[path[-1]] = os.path.abspath(joined)
            continue
        place[path[-1]] = joined  # as short as it was given
        if odd := unexpanded(value):
            mistakes.add(origin, f"{'.'.join(path)}: {odd} names no folder here")
        if why := unusable(joined):
            mistakes.add(origin, f"{'.'.join(path)}: '{shown(joined)}' cannot be a folder: {why}")


def _text_files(tree: dict[Any, Any]) -> list[tuple[str, ...]]:
    """Return the settings that are the files of several texts of a teacher."""
    teacher = tree.get("teacher")
    texts = teacher.get("texts") if isinstance(teacher, dict) else None
    return [("teacher", "texts", name, "file") for name in texts] if isinstance(texts, dict) else []


def _copied(tree: dict[Any, Any], path: tuple[str, ...]) -> dict[Any, Any]:
    """Replace the mapping at `path`, and those it is in below the first, by copies; return the innermost."""
    place = tree[path[0]]
    for part in path[1:]:
        place[part] = dict(place[part])
        place = place[part]
    return place


def _resolve_model(tree: dict[Any, Any], base_dir: Path, mistakes: Mistakes) -> None:
    """Look for a model that is a file or folder, or is written as one, in the recipe's folder."""
    model = tree.get("model")
    if not isinstance(model, dict):
        return
    tree["model"] = model = dict(model)  # a caller's own mapping stays as it is
    if isinstance(token := model.get("token"), str):
        model["token"] = expanded(token)
        if odd := unexpanded(model["token"]):
            mistakes.add(mistakes.origin(("model", "token")), f"model.token: {odd} is not set")
    name = model.get("id")
    if not isinstance(name, str) or name in ("", ModelConfig().id):
        return
    origin = mistakes.origin(("model", "id"))
    path = Path(os.path.abspath(_folder(origin, base_dir) / expanded(name)))
    if path.exists() or (not origin.startswith("'") and name.startswith(("./", "../"))):
        model["id"] = str(path)


def _folder(origin: str, base_dir: Path) -> Path:
    return Path(".") if origin.startswith("'") else base_dir
