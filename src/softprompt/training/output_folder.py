"""What an output folder holds before a run begins: nothing, a part of this run, all of it, or another's.

`check_room` needs the recipe alone, so that nobody waits for rows and a model to be told.
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


def check_room(recipe: Recipe, *, restart: bool = False, overwrite: bool = False) -> None:
    """Raises SoftPromptError where the output folder holds what another recipe left, which would be lost."""
    folder = Path(recipe.output)
    if overwrite:
        return
    if (folder / MANIFEST).exists():
        identity = _sound(folder, lambda: manifests.read(folder / MANIFEST)).get("identity")
        found = [] if identity is None else settings_differ(identity, decisive.settings(recipe))
        if identity is None or found:
            raise would_be_lost(folder, found)
        return
    identity = None if restart else started(folder / "checkpoint")
    if identity is not None and (found := settings_differ(identity, decisive.settings(recipe))):
        raise other_run(folder, found)


def of_this_run(folder: Path, identity: dict[str, Any]) -> artifacts.Artifact | None:
    """The tuned prompt that this very run has left in its folder; None where there is none.

    Raises SoftPromptError where there is another's.
    """
    if not (folder / MANIFEST).exists():
        return None
    artifact = _sound(folder, lambda: artifacts.load(folder))
    was = artifact.manifest.get("identity")
    if was is None:
        raise would_be_lost(folder, [])
    if found := differences(was, identity):
        raise would_be_lost(folder, found)
    return artifact


def make_room(folder: Path, *, restart: bool, overwrite: bool) -> None:
    """Remove what the user gives up: the checkpoint first, so that no kill leaves it to be gone on from."""
    manifest, checkpoint = folder / MANIFEST, folder / "checkpoint"
    replaced = overwrite and (manifest.exists() or manifest.is_symlink())
    if (restart or replaced) and is_unfinished(checkpoint):
        drop(checkpoint)
    if replaced:
        manifest.unlink()


def would_be_lost(folder: Path, found: list[str]) -> SoftPromptError:
    """The refusal to write over a tuned prompt; `found` is how it differs from this run."""
    return SoftPromptError(
        f"{folder} already holds a tuned prompt",
        why="it would be lost" + (f", and another run made it: {'; '.join(found)}" if found else ""),
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
