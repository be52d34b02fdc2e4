"""Several commands begin by opening a recipe with overrides, an artifact on its base, or rows by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SoftPromptError, unknown
from .output import log

if TYPE_CHECKING:
    from ..artifacts.artifact import Artifact
    from ..config.schema import Recipe
    from ..data.sources import Row
    from ..tuned import Tuned

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML recipe.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Settings that override the recipe's: lr=1e-2.", show_default=False
    ),
]
Restart = Annotated[bool, typer.Option("--restart", help="Drop an unfinished run instead of resuming it.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the tuned prompt that the output folder holds.")
]
ArtifactFolder = Annotated[
    Path,
    typer.Argument(
        metavar="ARTIFACT", help="The folder that tune wrote, or hf:ID[@REVISION].", show_default=False
    ),
]
PromptName = Annotated[
    str | None, typer.Option("--prompt", metavar="NAME", help="Which of several prompts to use.")
]
ModelName = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Load the base model from this id or path.")
]
OtherBase = Annotated[
    bool, typer.Option("--other-base", help="Accept another base model than it was trained on.")
]
TrustCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the base's checkpoint.")
]
DeviceMap = Annotated[
    str | None,
    typer.Option("--device-map", metavar="MAP", help="Spread the base model's layers: auto, balanced …"),
]
Plain = Annotated[bool, typer.Option("--plain", help="Use the plain model with the same template.")]


def open_recipe(path: Path, overrides: Sequence[str] | None) -> Recipe:
    """Read a recipe with its overrides, which may name a method's options.

    Where an override chooses another method, options of the recipe that this method lacks are left out.
    """
    from ..config.load import load_recipe
    from ..config.sections.model import MethodConfig
    from ..methods import find, option_names

    recipe = load_recipe(path, overrides or (), method_option_names=option_names())
    named = {override.partition("=")[0].strip().removeprefix("method.") for override in overrides or ()}
    if not named & {"method", "name"}:
        return recipe
    known, options = find(recipe.method.name).options(), recipe.method.options()
    stale = [key for key in options if key not in known and key not in named and key in option_names()]
    if stale:
        log(f"note: {recipe.method.name} has no option {', '.join(stale)}; left out")
    kept = {key: value for key, value in options.items() if key not in stale}
    return recipe.model_copy(update={"method": MethodConfig(name=recipe.method.name, **kept)})


def open_artifact(
    artifact: Artifact,
    model: str | None,
    other_base: bool,
    plain: bool,
    *,
    trust: bool = False,
    device_map: str | None = None,
) -> Tuned:
    """Open a verified artifact on its base model, or the plain model with its template."""
    from .._system import threads
    from ..build import saved_base
    from ..tuned import opened

    threads.use()
    log(f"loading {model or artifact.manifest['base']['name']} …")
    lm = saved_base(artifact, model, trust_remote_code=trust, device_map=device_map)
    return opened(artifact, lm, other_base=other_base, plain=plain)


def check_prompt(artifact: Artifact, rows: Sequence[Any], prompt: str | None) -> None:
    """Raise SoftPromptError for an unknown prompt, or rows that need one, before a model is loaded."""
    from ..config.load import recipe_from_dict
    from ..data.spelling import meant

    field = recipe_from_dict(artifact.manifest["recipe"]).data.prompt_field
    named = [row for row in rows if isinstance(row, Mapping) and field and row.get(field) not in (None, "")]
    if prompt is not None or len(named) < len(rows):
        name_of(artifact, prompt)
    if odd := next((row for row in named if meant(str(row[field]), artifact.prompts) is None), None):
        error = unknown("prompt", str(odd[field]), artifact.prompts, fix="use a prompt of this artifact")
        raise SoftPromptError(f"{getattr(odd, 'where', 'a row')}: {error.what}", error.why, error.fix)


def with_prompt(rows: Sequence[Any], tuned: Tuned, prompt: str | None) -> list[Row]:
    """Return the rows; those that name no prompt get `prompt` (by default the only one)."""
    from ..data.sources import Row

    field = tuned.recipe.data.prompt_field
    named = [row for row in rows if field and row.get(field) not in (None, "")]
    if len(named) == len(rows):
        if prompt is not None:
            log(f"note: --prompt has no effect: every row names a prompt in '{field}'")
        return list(rows)
    name = name_of(tuned.artifact, prompt)
    if field is None:
        return list(rows)
    return [
        row if row.get(field) not in (None, "") else Row({**row, field: name}, getattr(row, "where", "a row"))
        for row in rows
    ]


def inputs_of(rows: Sequence[Any], tuned: Tuned, prompt: str | None) -> tuple[Sequence[Any], str | None]:
    """Return inputs, and the prompt that answers them: None where they are rows, which name it themselves."""
    if isinstance(rows[0], str):
        return rows, name_of(tuned.artifact, prompt)
    return with_prompt(rows, tuned, prompt), None


def name_of(artifact: Artifact, prompt: str | None) -> str:
    """Check a prompt's name and return it; None means the only prompt."""
    return artifact.prompts[artifact.index(prompt)]
