"""`softprompt search` trains many settings of one recipe side by side in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._system.progress import say
from ..errors import SoftPromptError
from .opening import Overrides, RecipeFile, open_recipe
from .output import Json, Reply
from .processes import of_first, one_run, started_for
from .side_by_side import Prepare, run_together

if TYPE_CHECKING:
    from .._system.world import World
    from ..config.schema import Recipe
    from ..training.prepare import Prepared

Over = Annotated[
    list[str],
    typer.Option("--over", metavar="KEY=V1,V2", help="A setting and its values; may be given again."),
]


def search(
    recipe: RecipeFile,
    overrides: Overrides = None,
    over: Over = [],  # noqa: B006 (typer's way)
    restart: Annotated[bool, typer.Option("--restart", help="Drop unfinished runs.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the folders hold.")] = False,
    json: Json = False,
) -> Reply:
    """Train every combination of some settings, in one run.

    All are trained side by side, each with its own optimizer, schedule and early stopping, and with the
    result that it would have alone. Each is saved in its own folder in the recipe's output folder. The same
    command resumes after Ctrl-C or a crash; finished settings are not trained again.

    \b
    Example:
      softprompt search recipe.yaml --over lr=1e-3,3e-3,1e-2,3e-2 --over seed=0,1,2,3
      softprompt search recipe.yaml steps=100 --over length=4,16 --over placement=before,after
    """
    if not over:
        raise SoftPromptError("nothing to search over", fix="--over lr=1e-3,3e-3,1e-2,3e-2")
    command = [
        "search",
        str(recipe),
        *(overrides or []),
        *(part for text in over for part in ("--over", text)),
    ]
    with one_run() as world:
        base = open_recipe(recipe, overrides)
        flags = {"--restart": restart, "--overwrite": overwrite, "--json": json}
        if (reply := started_for(base, world, command, flags)) is not None:
            return reply
        make = _settings_of(base, recipe, overrides, over, world)
        return of_first(world, run_together(make, world, restart=restart, overwrite=overwrite, json=json))


def _settings_of(
    base: Recipe, recipe: Path, overrides: Sequence[str] | None, over: Sequence[str], world: World
) -> Prepare:
    """Return what prepares a run for each combination of the settings."""
    from ..training.sweep import name_of, prepare_settings, settings

    chosen = settings(dict(map(_values, over)))
    names = [_folder(name_of(setting)) for setting in chosen]
    recipes = [
        open_recipe(
            recipe,
            [
                *(overrides or []),
                *(f"{key}={value}" for key, value in setting.items()),
                f"output={Path(base.output) / name}",
            ],
        )
        for setting, name in zip(chosen, names, strict=True)
    ]
    say(f"{len(recipes)} settings: reading the rows and loading {base.model} …")

    def make(claim: Callable[[Sequence[Recipe]], None]) -> tuple[list[Prepared], list[str]]:
        return prepare_settings(recipes, before_loading=claim, world=world), names

    return make


def _folder(name: str) -> str:
    return name.replace("/", "_")


def _values(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    listed = [value.strip() for value in values.split(",") if value.strip()]
    if not equals or not listed:
        raise SoftPromptError(f"--over {text}: no values", fix="--over lr=1e-3,1e-2")
    return key.strip(), list(dict.fromkeys(listed))
