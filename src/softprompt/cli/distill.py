"""`softprompt distill` turns a text that every request repeats into vectors, and shows what was lost."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SoftPromptError
from .interruption import Interruption
from .opening import Overwrite, Restart
from .output import Json, Reply, duration, log, size, table

if TYPE_CHECKING:
    from ..config.schema import Recipe
    from ..distillation.run import Distilled

SHOWN = 200  # characters of a sample
FEW = 20  # requests: with fewer, the interval says little


def distill(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]", help="A YAML recipe, and settings: length=16.", show_default=False
        ),
    ] = None,
    system: Annotated[
        Path | None, typer.Option("--system", metavar="FILE", help="The system prompt that becomes vectors.")
    ] = None,
    requests: Annotated[
        str | None,
        typer.Option(
            "--requests", metavar="FILE", help="Rows of requests; without them the model writes some itself."
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=8, metavar="N", help="How many requests the model writes itself.")
    ] = 96,
    field: Annotated[
        str | None, typer.Option("--field", metavar="NAME", help="The field that holds a row's request.")
    ] = None,
    vectors: Annotated[
        int | None, typer.Option("--vectors", min=1, metavar="N", help="How many vectors (default 64).")
    ] = None,
    restart: Restart = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> Reply:
    """Turn a system prompt into a few vectors, and show what was lost.

    The model answers the requests with the text; the vectors learn to make it answer so without the text.
    Some requests are kept apart and show how much of the text's effect is left.

    \b
    Example:
      softprompt distill --system system.txt
      softprompt distill --system system.txt --requests requests.jsonl
      softprompt distill --system system.txt --requests requests.jsonl --vectors 16 output=runs/pirate
    """
    from .._system.run_lock import held
    from ..distillation.run import distil
    from ..training.output_folder import check_room
    from ..training.tune import Interrupted

    recipe = _recipe(settings or [], system, vectors)
    folder = Path(recipe.output)
    with held([folder]), Interruption() as interruption:
        try:
            check_room(recipe, restart=restart, overwrite=overwrite)
            result = distil(
                recipe,
                requests,
                field=field,
                count=count,
                hooks=interruption.hooks(),
                restart=restart,
                overwrite=overwrite,
            )
        except (Interrupted, KeyboardInterrupt):
            text = f"stopped; what is done is saved beside {folder}. To resume, run the same command"
            return Reply({"interrupted": True, "output": str(folder)}, text, code=130)
    return Reply(result.report(), None if json else _text(result))


def _recipe(settings: list[str], system: Path | None, vectors: int | None) -> Recipe:
    """Read the recipe, or make one of the text."""
    from ..config.load import load_recipe, recipe_from_dict
    from ..distillation.run import recipe_of
    from ..methods import option_names

    named = settings and "=" not in settings[0]
    overrides = settings[1:] if named else list(settings)
    if vectors is not None:
        overrides.append(f"method.length={vectors}")
    if named:
        if system is not None:
            raise SoftPromptError(
                "a recipe and --system were given",
                why="both name the text",
                fix="leave one out; in a recipe, `teacher: {file: …}` names it",
            )
        if Path(settings[0]).suffix in (".txt", ".md", ""):
            raise SoftPromptError(
                f"'{settings[0]}' is given as a recipe",
                why="a recipe is a YAML file",
                fix=f"softprompt distill --system {shlex.quote(settings[0])}",
            )
        return load_recipe(settings[0], overrides, method_option_names=option_names())
    if system is None:
        raise SoftPromptError(
            "no text was given", why="it is what becomes vectors", fix="--system FILE, or a recipe"
        )
    tree = recipe_of({"teacher": {"context": None, "file": str(system)}}, "", chat=True)
    recipe = recipe_from_dict(tree, None, overrides, method_option_names=option_names())
    if _has_chat_template(recipe.model.id) or any(s.startswith("template.chat=") for s in overrides):
        return recipe
    log("note: the model has no chat template, so the text comes ahead of each request as plain text")
    return recipe.with_settings({"template.chat": False})


def _has_chat_template(model: str) -> bool:
    from ..lm.loading import load_tokenizer

    return bool(getattr(load_tokenizer(model), "chat_template", None))


def _figure(value: float | None) -> str:
    """Write a figure with three decimals: what rounding leaves of 0 is 0."""
    return "n/a" if value is None else f"{value + 0.0:.3f}".replace("-0.000", "0.000")


def _short(text: str) -> str:
    """Return a text in one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]} …"


def _text(result: Distilled) -> str:
    comparison, path = result.comparison, result.run.artifact.path

    share, low, high = (100 * value for value in comparison.share)
    rows: list[tuple[Any, ...]] = [
        ("ahead of the request", "nats from the text", "same token", "chrF", "same answer")
    ]
    for name, way in comparison.ways.items():
        metrics = way["metrics"]
        rows.append(
            (name, *(_figure(metrics.get(key)) for key in ("kl", "agreement", "chrf", "exact_match")))
        )
    first = comparison.first_token
    paid = comparison.paid_after
    facts = [
        ("artifact", f"{path} ({size(result.run.artifact.bytes)})"),
        (
            "tokens saved a request",
            f"{comparison.text_tokens}; {comparison.soft_tokens} vectors are read instead",
        ),
        (
            "first token",
            f"{1e3 * first['text']:.0f} ms with the text, {1e3 * first['vectors']:.0f} ms with the vectors",
        ),
        (
            "a million requests",
            f"{duration(1e6 * first['text'])} of this machine with the text, "
            f"{duration(1e6 * first['vectors'])} with the vectors, up to the first token",
        ),
        (
            "took",
            duration(comparison.seconds)
            + (
                f"; paid for after {paid:,.0f} requests"
                if paid is not None
                else "; the vectors save no time here"
            ),
        ),
        (
            "teacher's answers",
            f"{comparison.answered[0]} of {comparison.answered[1]} are complete: {result.folder}",
        ),
    ]
    samples = []
    for sample in comparison.samples:
        samples += ["", f"request: {_short(sample['request'])}"]
        samples += [f"  {name + ':':<9} {_short(sample[name])}" for name in ("text", "vectors", "no text")]
    folder = shlex.quote(str(path))
    n = comparison.ways["vectors"]["n"]
    few = [f"note: {n} requests say little of others; give more of them"] if n < FEW else []
    return "\n".join(
        [
            f"the vectors keep {share:.0f} % of the text's effect [{low:.0f}, {high:.0f}] "
            f"on {n} requests that were kept apart",
            *few,
            table(rows, right=range(1, 5)),
            "",
            table(facts),
            *samples,
            "",
            "next:",
            f'  softprompt generate {folder} "your request"',
            f"  softprompt eval {folder} --data {shlex.quote(str(result.folder / 'requests.jsonl'))}",
            f"  softprompt serve {folder}",
        ]
    )
