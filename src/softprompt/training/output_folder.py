"""An output folder is checked before a run begins: it may hold nothing, this run, or another run's result.

`check_room` needs only the recipe, so that a refusal comes before rows are read and a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..artifacts import artifact as artifacts
from ..artifacts import manifest as manifests
from ..artifacts.artifact import MANIFEST
from ..config.identity import differences, other_run, settings_differ
from ..config.schema import Recipe
from ..errors import SoftPromptError
from . import decisive
from .checkpoint import drop, is_unfinished, started
from .demonstrations import starts_with_demonstrations


def check_room(recipe: Recipe, *, restart: bool = False, overwrite: bool = False) -> None:
    """Raise SoftPromptError where the output folder holds the result of another recipe."""
    folder = Path(recipe.output)
    if overwrite:
        return
    if (folder / MANIFEST).exists():
        identity = _sound(folder, lambda: manifests.read(folder / MANIFEST)).get("identity")
        differing = [] if identity is None else settings_differ(identity, _settings(recipe))
        if identity is None or differing:
            raise would_be_lost(folder, differing)
        return
    identity = None if restart else started(folder / "checkpoint")
    if identity is not None and (differing := settings_differ(identity, _settings(recipe))):
        raise other_run(folder, differing)


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that are known before rows are read."""
    known = decisive.settings(recipe)
    if starts_with_demonstrations(recipe):  # which decide the number of vectors
        known.pop("method.length", None)
    return known


def of_this_run(folder: Path, identity: dict[str, Any]) -> artifacts.Artifact | None:
    """Load the tuned prompt that this very run has saved in its folder; None where there is none.

    Raises SoftPromptError where the folder holds the prompt of another run.
    """
    if not (folder / MANIFEST).exists():
        return None
    artifact = _sound(folder, lambda: artifacts.load(folder))
    saved = artifact.manifest.get("identity")
    if saved is None:
        raise would_be_lost(folder, [])
    if differing := differences(saved, identity):
        raise would_be_lost(folder, differing)
    return artifact


def starts_anew(folder: Path, *, restart: bool, overwrite: bool) -> bool:
    """Return whether the run gives up what is there. `overwrite` alone resumes an unfinished run."""
    manifest = folder / MANIFEST
    return restart or (overwrite and (manifest.exists() or manifest.is_symlink()))


def make_room(folder: Path, *, restart: bool, overwrite: bool) -> None:
    """Remove what the user gives up: the checkpoint first, so that no kill leaves it to be resumed."""
    manifest, checkpoint = folder / MANIFEST, folder / "checkpoint"
    replaced = starts_anew(folder, restart=False, overwrite=overwrite)
    if (restart or replaced) and is_unfinished(checkpoint):
        drop(checkpoint)
    if replaced:
        manifest.unlink()


def would_be_lost(folder: Path, differing: list[str]) -> SoftPromptError:
    """Make the error for a folder that holds a tuned prompt; `differing` says how its run differs."""
    return SoftPromptError(
        f"{folder} already holds a tuned prompt",
        why="it would be lost" + (f", and another run made it: {'; '.join(differing)}" if differing else ""),
        fix="choose another output=FOLDER, or add --overwrite",
    )


def _sound(folder: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except SoftPromptError as error:
        raise SoftPromptError(
            f"{folder} already holds a tuned prompt, which is damaged",
            why=f"{error.what}: {error.why}",
            fix="add --overwrite to train it again, or choose another output=FOLDER",
        ) from None
