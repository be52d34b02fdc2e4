"""The vectors are trained with several seeds, side by side, and those that are best on the dev rows are kept.

A seed decides the order of the rows, and the start where it is random. Each seed trains in a folder of its
own beside the output folder, so that an interrupted run resumes, and the best is saved in the output folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._system.notes import note
from ..config.schema import Recipe
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..training.prepare import Prepared, prepare
from ..training.run import Hooks, Run
from ..training.tune import not_finite, tune_many
from .output import drop_replaced, keep_beside, saved_as, setting_of

SEED = "train.seed"
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


def as_kept(recipe: Recipe) -> Recipe:
    """Return the recipe with the seed whose vectors the output folder holds: another is no other recipe."""
    kept = setting_of(Path(recipe.output), SEED)
    return recipe if kept is None else with_seed(recipe, kept)


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """Return the recipe with another seed."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})


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

    Seeds that were trained before are used as they are. `check` is called with what was prepared before
    anything is trained. A seed whose loss is not finite is left out, with a note. Raises SoftPromptError
    where that happens to all of them.
    """
    folder, prepared_runs = Path(recipe.output), list[Prepared]()
    for seed in range(recipe.train.seed, recipe.train.seed + seeds):
        of_seed = with_seed(recipe, seed).model_copy(update={"output": str(_place(folder, seed))})
        prepared_runs.append(prepare(of_seed, lm=lm, rows=rows, dev_rows=dev_rows))
        if len(prepared_runs) == 1:
            check(prepared_runs[0])
    by_seed = {run.recipe.train.seed: run for run in prepared_runs}
    kept = None if overwrite else setting_of(folder, SEED)
    if kept is not None and not (restart and kept in by_seed):
        run = by_seed.get(kept) or prepare(with_seed(recipe, kept), lm=lm, rows=rows, dev_rows=dev_rows)
        keep_beside(folder, _place(folder, kept), run)
    runs = tune_many(prepared_runs, hooks=hooks, restart=restart, overwrite=overwrite, text_rows=0)
    finite = finite_of(runs)
    if lost := [str(seed_of(run)) for run in runs if run.outcome.stopped == "nan"]:
        note(f"the loss was not finite with seed {', '.join(lost)}: left out of the report")
    best = max(finite, key=lambda run: run.key)
    if overwrite:
        drop_replaced(folder, SEED, best)
    first = saved_as(best, folder, SEED, restart=restart, overwrite=overwrite)
    return [first, *(run for run in finite if run is not best)]


def finite_of(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose loss stayed finite. Raises SoftPromptError where none did."""
    finite = [run for run in runs if run.outcome.stopped != "nan"]
    if not finite:
        raise not_finite(runs[0])
    return finite


def seed_of(run: Run) -> int:
    """Return the seed that a run was trained with."""
    return run.prepared.recipe.train.seed


def _place(folder: Path, seed: int) -> Path:
    """Return the folder of one seed, beside the output folder."""
    return Path(f"{folder}-distill") / f"seed-{seed}"
