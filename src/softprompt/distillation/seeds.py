"""The vectors are trained with several seeds, side by side, and those that are best on the dev rows are kept.

A seed decides the order of the rows, and the start where it is random. Each seed trains in a folder of its
own beside the output folder, so that an interrupted run resumes, and the best is saved in the output folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._system.notes import note
from ..artifacts import artifact as artifacts
from ..artifacts import manifest as manifests
from ..artifacts.manifest import MANIFEST
from ..config.schema import Recipe
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..training.output_folder import make_room, of_this_run
from ..training.prepare import Prepared, prepare
from ..training.run import Hooks, Run
from ..training.tune import not_finite, tune, tune_many

SEEDS = 3  # as many as a comparison trains


def number_of_seeds(recipe: Recipe, asked_for: int | None) -> int:
    """Return how many seeds are trained; by default `SEEDS`, or one where the base is trained too."""
    if asked_for is None:
        return SEEDS if recipe.base.mode == "frozen" else 1
    if asked_for < 1:
        raise SoftPromptError(
            f"{asked_for} seeds were given", why="at least one is trained", fix="seeds=1 or more"
        )
    if asked_for > 1 and recipe.base.mode != "frozen":
        raise SoftPromptError(
            f"{asked_for} seeds cannot be trained side by side",
            why=f"base.mode={recipe.base.mode} trains the base model too, which the seeds would share",
            fix="seeds=1 (--seeds 1 on the command line), or base.mode=frozen",
        )
    return asked_for


def as_kept(recipe: Recipe, seeds: int) -> Recipe:
    """Return the recipe with the seed whose vectors the output folder holds, if it is one of these seeds."""
    file, first = Path(recipe.output) / MANIFEST, recipe.train.seed
    if seeds == 1 or not file.exists():
        return recipe
    try:
        kept = manifests.read(file).get("identity", {}).get("settings", {}).get("train.seed")
    except SoftPromptError:  # a damaged folder is reported by the check that follows
        return recipe
    return recipe.with_settings({"train.seed": kept}) if kept in range(first, first + seeds) else recipe


def train_seeds(
    recipe: Recipe,
    seeds: int,
    *,
    lm: LanguageModel,
    rows: Sequence[Mapping[str, Any]],
    dev_rows: Sequence[Mapping[str, Any]],
    check: Callable[[Prepared], None],
    hooks: Hooks,
    restart: bool = False,
    overwrite: bool = False,
) -> list[Run]:
    """Train `seeds` seeds from `train.seed` on, and return their runs, the one that is kept first.

    `check` is called with what was prepared before anything is trained. A seed whose loss is not finite is
    left out, with a note. Raises SoftPromptError where that happens to all of them.
    """
    options: dict[str, Any] = {
        "hooks": hooks,
        "restart": restart,
        "overwrite": overwrite,
        "text_rows": 0,
    }
    if seeds == 1:
        prepared = prepare(recipe, lm=lm, rows=rows, dev_rows=dev_rows)
        check(prepared)
        return [tune(prepared, **options)]
    prepared_runs: list[Prepared] = []
    for seed in range(recipe.train.seed, recipe.train.seed + seeds):
        of_seed = recipe.with_settings({"train.seed": seed, "output": f"{recipe.output}-distill/seed-{seed}"})
        prepared_runs.append(prepare(of_seed, lm=lm, rows=rows, dev_rows=dev_rows))
        if len(prepared_runs) == 1:
            check(prepared_runs[0])
    runs = tune_many(prepared_runs, **options)
    finite = finite_of(runs)
    if lost := [str(seed_of(run)) for run in runs if run.outcome.stopped == "nan"]:
        note(f"the loss was not finite with seed {', '.join(lost)}: left out of the report")
    best = max(finite, key=lambda run: run.key)
    kept = saved_as(best, Path(recipe.output), restart=restart, overwrite=overwrite)
    return [kept, *(run for run in finite if run is not best)]


def finite_of(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose loss stayed finite. Raises SoftPromptError where none did."""
    finite = [run for run in runs if run.outcome.stopped != "nan"]
    if not finite:
        raise not_finite(runs[0])
    return finite


def seed_of(run: Run) -> int:
    """Return the seed that a run was trained with."""
    return run.prepared.recipe.train.seed


def saved_as(run: Run, folder: Path, *, restart: bool, overwrite: bool) -> Run:
    """Save the vectors of a run in another folder; nothing is written where they are there already."""
    recipe = run.prepared.recipe.model_copy(update={"output": str(folder)})
    prepared = replace(run.prepared, recipe=recipe)
    if run.was_finished and not overwrite:
        saved = of_this_run(folder, prepared.identity())
        if saved is not None:
            return replace(run, prepared=prepared, artifact=saved)
    make_room(folder, restart=restart, overwrite=overwrite)
    left_out = ("schema", "files", "positions", "distribution")
    content = {key: value for key, value in run.artifact.manifest.items() if key not in left_out}
    content["recipe"] = recipe.recorded().to_dict()
    saved = artifacts.save(folder, prepared.method, prepared.lm, content)
    return replace(run, prepared=prepared, artifact=saved)
