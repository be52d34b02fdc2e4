"""`softprompt distill --demonstrations` turns demonstrations into vectors, and shows what was lost."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SoftPromptError
from .interruption import resumable
from .output import Reply, duration, number, scores, size, table

if TYPE_CHECKING:
    from ..config.schema import Recipe
    from ..distillation.demonstrations import TunedDemonstrations
    from ..training.tune import Hooks

FEW = 50  # rows: with fewer, the interval says little


def recipe_of_demonstrations(
    settings: Sequence[str], file: Path | None, texts: Sequence[Path | None], vectors: int | None
) -> Recipe | None:
    """Read the recipe, or make one for a file of demonstrations; None where a text is distilled."""
    from ..config.load import load_recipe, recipe_from_dict
    from ..distillation.demonstration_recipe import recipe_of
    from ..methods import option_names
    from ..training.demonstrations import starts_with_demonstrations

    named = bool(settings) and "=" not in settings[0]
    overrides = [*settings[named:], *([] if vectors is None else [f"method.length={vectors}"])]
    if file is None:
        if not named or any(texts) or Path(settings[0]).suffix not in (".yaml", ".yml"):
            return None
        recipe = load_recipe(settings[0], overrides, method_option_names=option_names())
        return recipe if starts_with_demonstrations(recipe) else None
    if named or any(texts):
        other = f"the recipe {settings[0]}" if named else "--system or --document"
        raise SoftPromptError(
            f"--demonstrations and {other} were given",
            why="both name what becomes vectors",
            fix="leave one out; in a recipe, data.train names the demonstrations",
        )
    recipe = recipe_from_dict(recipe_of(file, overrides), None, overrides, method_option_names=option_names())
    if starts_with_demonstrations(recipe):
        return recipe
    raise SoftPromptError(
        f"method.init={recipe.method.options().get('init')} does not start as the demonstrations",
        why="--demonstrations compares the tuned vectors with the demonstrations that they start as",
        fix="leave it out; or softprompt tune, which takes any start",
    )


def distill_demonstrations(
    recipe: Recipe,
    requests: str | None,
    measured: str | None,
    given: Mapping[str, Any],
    *,
    restart: bool,
    overwrite: bool,
    json: bool,
) -> Reply:
    """Run the distillation of a recipe's demonstrations, and reply with its report."""
    from ..distillation.demonstrations import distil_demonstrations

    for name, value in given.items():
        if value is not None:
            raise SoftPromptError(
                f"{name} has no effect on demonstrations",
                why="it belongs to the distillation of a text",
                fix=f"leave {name} out",
            )
    options: dict[str, Any] = {"measured": measured, "restart": restart, "overwrite": overwrite}

    def work(hooks: Hooks) -> Reply:
        result = distil_demonstrations(recipe, requests, hooks=hooks, **options)
        return Reply(result.report(), None if json else report_text(result))

    return resumable(Path(recipe.output), work)


def report_text(result: TunedDemonstrations) -> str:
    """Return the report as the command prints it."""
    report, path = result.report(), result.run.artifact.path
    names = list(report["ways"]["tuned vectors"]["metrics"])
    rows: list[tuple[Any, ...]] = [("ahead of the request", *names, "target's loss (nats)")]
    for name, way in report["ways"].items():
        rows.append((name, *(scores(way, metric) for metric in names), number(way["target_loss"])))
    n, first = report["ways"]["tuned vectors"]["n"], result.first_token
    answered, unanswered = result.answered
    facts = [
        ("artifact", f"{path} ({size(result.run.artifact.bytes)})"),
        ("demonstrations", f"{result.shown}, of {report['vectors']} tokens"),
        ("tokens saved a request", f"{report['tokens_saved']}; as many vectors are read instead"),
        (
            "the start",
            f"untrained vectors differ from the text by {result.largest_difference:.1g} nats at most",
        ),
        (
            "first token",
            f"{1e3 * first['in context']:.0f} ms with the text, "
            f"{1e3 * first['tuned vectors']:.0f} ms with the vectors",
        ),
        ("took", duration(result.seconds)),
    ]
    if unanswered:
        facts.append(("without a target", f"{answered} of {unanswered} answered: {result.folder}"))
    return "\n".join(
        [
            f"{result.shown} demonstrations as vectors, on {n} rows that were kept apart (95 % intervals)",
            *([f"note: {n} rows say little of others; give more of them"] if n < FEW else []),
            table(rows),
            "",
            table(facts),
            "",
            "next:",
            f'  softprompt generate {shlex.quote(str(path))} "your request"',
            f"  softprompt report {shlex.quote(str(path))} --open",
            f"  softprompt serve {shlex.quote(str(path))}",
        ]
    )
