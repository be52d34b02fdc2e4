"""The output folder of a distillation holds the best of its runs, and each run has a folder beside it.

A run is a seed or a number of vectors. Runs that are in their folders are used again by a later call, which
may ask for others: then another one can be the best and takes the place in the output folder, with a note.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._system.notes import note
from ..artifacts import artifact as artifacts
from ..artifacts import manifest as manifests
from ..artifacts.manifest import MANIFEST
from ..config.identity import Identity, differences
from ..errors import SoftPromptError
from ..training.checkpoint import drop, is_unfinished, started
from ..training.output_folder import make_room, of_this_run
from ..training.prepare import Prepared
from ..training.run import Run


def setting_of(folder: Path, name: str) -> Any:
    """Return a setting of the run in a folder, by its dotted name; None without a run, or a damaged one."""
    identity = _identity(folder) or started(folder / "checkpoint") or {}
    return identity.get("settings", {}).get(name)


def keep_beside(folder: Path, place: Path, run: Prepared) -> None:
    """Copy the run that `folder` holds to `place`, where there is none yet: another may take its place.

    Raises SoftPromptError where it is not `run`.
    """
    of_this_run(folder, run.identity())
    if (place / MANIFEST).exists() or is_unfinished(place / "checkpoint"):
        return
    temporary = place.with_name(f".{place.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(folder, temporary, ignore=shutil.ignore_patterns(".*"))
    shutil.rmtree(place, ignore_errors=True)
    temporary.rename(place)
    if not (folder / MANIFEST).exists():
        drop(folder / "checkpoint")  # the unfinished run resumes beside


def saved_as(run: Run, folder: Path, free: str, *, restart: bool, overwrite: bool) -> Run:
    """Save the vectors of a run in the output folder; nothing is written where they are there already.

    A note says where the vectors of another run, which differs in the setting `free`, were there before.
    """
    recipe = run.prepared.recipe.model_copy(update={"output": str(folder)})
    prepared = replace(run.prepared, recipe=recipe)
    now, before = prepared.identity()["settings"].get(free), setting_of(folder, free)
    if not overwrite and before is not None and before != now:
        note(
            f"{folder} now holds the vectors of {free}={now}, the best on the dev rows of those that were "
            f"asked for; the vectors of {free}={before}, which it held, stay in {folder}-distill"
        )
    elif run.was_finished and not overwrite:
        saved = of_this_run(folder, prepared.identity())
        if saved is not None:
            return replace(run, prepared=prepared, artifact=saved)
    make_room(folder, restart=restart, overwrite=overwrite)
    # without it the folder is unfinished, not damaged, if the run is killed between two of the files
    (folder / MANIFEST).unlink(missing_ok=True)
    left_out = ("schema", "files", "positions", "distribution")
    content = {key: value for key, value in run.artifact.manifest.items() if key not in left_out}
    content["recipe"] = recipe.recorded().to_dict()
    saved = artifacts.save(folder, prepared.method, prepared.lm, content)
    return replace(run, prepared=prepared, artifact=saved)


def drop_replaced(folder: Path, free: str, run: Run) -> None:
    """Remove the runs of a recipe that was replaced by that of `run`; those that differ in `free` stay.

    A later call that asks for them would be refused otherwise, after the teacher has answered.
    """
    name = Path(run.prepared.recipe.output).name.rpartition("-")[0]
    now = _but(free, run.prepared.identity())
    for place in sorted(Path(f"{folder}-distill").glob(f"{name}-*")):
        there = _identity(place) or started(place / "checkpoint")
        if there is not None and differences(_but(free, there), now):
            shutil.rmtree(place)
            note(f"{place} held vectors of the recipe that was replaced: removed")


def _but(free: str, identity: Identity) -> Identity:
    """Return what decides a run but one setting, and the dev rows, whose order the seed decides."""
    parts = {name: identity.get(name) or {} for name in ("settings", "rows")}
    return {**identity, **{name: _without({free, "dev"}, part) for name, part in parts.items()}}


def _without(keys: Collection[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _identity(folder: Path) -> dict[str, Any] | None:
    """Return the identity of the run whose vectors a folder holds; None without them, or where damaged."""
    try:
        return manifests.read(folder / MANIFEST).get("identity") if (folder / MANIFEST).exists() else None
    except SoftPromptError:  # a damaged folder is reported by `check_room`
        return None
