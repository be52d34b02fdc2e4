"""`softprompt distill` turns a text that every request repeats into vectors, and shows what was lost."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SoftPromptError
from .distill_demonstrations import distill_demonstrations, recipe_of_demonstrations
from .distill_price import price_of
from .interruption import resumable
from .opening import Overwrite, Restart
from .output import Json, Reply, log
from .quantities import seconds as seconds_of

if TYPE_CHECKING:
    from ..config.schema import Recipe
    from ..training.tune import Hooks


def distill(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]", help="A YAML recipe, and settings: length=16.", show_default=False
        ),
    ] = None,
    systems: Annotated[
        list[Path] | None,
        typer.Option("--system", metavar="FILE", help="The system prompt that becomes vectors."),
    ] = None,
    documents: Annotated[
        list[Path] | None,
        typer.Option(
            "--document",
            metavar="FILE",
            help="The document that becomes vectors. Several, a folder or a table: a prompt each.",
        ),
    ] = None,
    together: Annotated[
        bool,
        typer.Option("--together", help="Several texts: train prompts to be attached together."),
    ] = False,
    apart: Annotated[
        bool, typer.Option("--apart", help="Several texts: one artifact each, trained alone.")
    ] = False,
    demonstrations: Annotated[
        Path | None,
        typer.Option("--demonstrations", metavar="FILE", help="Rows of demonstrations that become vectors."),
    ] = None,
    requests: Annotated[
        str | None,
        typer.Option(
            "--requests", metavar="FILE", help="Rows of requests; without them the model writes some itself."
        ),
    ] = None,
    measured: Annotated[
        str | None,
        typer.Option("--measure", metavar="FILE", help="Rows of requests that are only measured on."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            min=8,
            metavar="N",
            help="How many requests the model writes itself (default 96, for a document 256).",
        ),
    ] = None,
    field: Annotated[
        str | None, typer.Option("--field", metavar="NAME", help="The field that holds a row's request.")
    ] = None,
    vectors: Annotated[
        str | None,
        typer.Option(
            "--vectors", metavar="N", help="How many vectors (default 64); auto tries 1, 4, 16, 64 and 256."
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="TIME", help="With --vectors auto: train no longer than this: 10m."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", min=1, metavar="N", help="Train with so many seeds, keep the best (default 3)."
        ),
    ] = None,
    price_hour: Annotated[
        float | None,
        typer.Option(
            "--price-hour", min=0, metavar="PRICE", help="What an hour of this machine costs, for prices."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what it would cost, and write nothing.")
    ] = False,
    restart: Restart = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> Reply:
    """Turn a text into a few vectors, and show what was lost.

    The model answers the requests with the text; the vectors learn to make it answer so without the text.
    Some requests are kept apart and show how much of the text's effect is left.

    \b
    Example:
      softprompt distill --system system.txt
      softprompt distill --system system.txt --requests requests.jsonl
      softprompt distill --system system.txt --requests requests.jsonl --vectors 16 output=runs/pirate
      softprompt distill --system system.txt --check
      softprompt distill --document manual.md --vectors 128
      softprompt distill --document manual.md --vectors auto --time 30m
      softprompt distill --document a.md --document b.md --together
      softprompt distill --demonstrations shots.jsonl --requests requests.jsonl
    """
    from ..distillation.run import distil
    from ..distillation.several import refuse_for_several
    from ..distillation.work import Arguments
    from .distill_several import check_alone, distill_texts, texts_given
    from .distilled import report_text

    texts = texts_given(systems or [], documents or [])
    system, document = ((given or [None])[0] for given in (systems, documents))
    number, is_auto = _number(vectors), vectors == "auto"
    shown = recipe_of_demonstrations(settings or [], demonstrations, [system, document], number)
    if shown is not None:
        flags = {"--together": together or None, "--apart": apart or None}
        flags |= {"--time": time, "--vectors auto": is_auto or None}
        flags |= {"--check": check or None}
        given = {"--count": count, "--field": field, "--seeds": seeds, "--price-hour": price_hour, **flags}
        options = {"restart": restart, "overwrite": overwrite, "json": json}
        return distill_demonstrations(shown, requests, measured, given, **options)
    if texts is not None and together:
        settings = [*(settings or []), "train.together=true"]
    recipe, any_method = _recipe(settings or [], system, document, vectors, texts)
    if recipe.teacher.texts is None:
        check_alone(together=together, apart=apart)
    anew = {"restart": restart, "overwrite": overwrite}
    if recipe.teacher.texts is not None:
        alone = {"--measure": measured, "--seeds": seeds, "--price-hour": price_hour}
        alone |= {"--check": check or None}
        refuse_for_several(alone | {"--time": time, "--vectors auto": is_auto or None})
        flags = {"field": field, "count": count, "apart": apart, "any_method": any_method}
        return distill_texts(recipe, requests, json=json, **flags, **anew)
    given = Arguments(
        requests,
        measured,
        field,
        count,
        any_method=any_method,
        seeds=seeds,
        seconds=None if time is None else seconds_of(time, "--time"),
    )
    if check:
        command = "the same command without --check"
        return price_of(recipe, given, command, json=json, price_hour=price_hour)

    def work(hooks: Hooks) -> Reply:
        result = distil(recipe, given, hooks=hooks, price_hour=price_hour, **anew)
        return Reply(result.report(), None if json else report_text(result))

    return resumable(Path(recipe.output), work)


def _number(vectors: str | None) -> int | None:
    """Read a number of vectors; None where none is given, or auto. Another value is wrong usage."""
    if vectors is None or vectors == "auto":
        return None
    if not vectors.isdecimal() or int(vectors) < 1:
        raise typer.BadParameter("--vectors takes a number from 1 on, or auto")
    return int(vectors)


def _recipe(
    settings: list[str],
    system: Path | None,
    document: Path | None,
    vectors: str | None,
    texts: dict[str, Any] | None = None,
) -> tuple[Recipe, bool]:
    """Read the recipe, or make one of the text; and say whether any method may be used."""
    from ..config.load import load_recipe, recipe_from_dict
    from ..distillation.recipe import recipe_of
    from ..methods import option_names

    named = settings and "=" not in settings[0]
    overrides = settings[1:] if named else list(settings)
    if vectors is not None:
        overrides.append(f"method.length={vectors}")
    if system is not None and document is not None:
        raise SoftPromptError(
            "--system and --document were given",
            why="both name the text",
            fix="leave one out; a document may also be a part of the system prompt's file",
        )
    option, text = ("--document", document) if system is None else ("--system", system)
    if named:
        if text is not None:
            raise SoftPromptError(
                f"a recipe and {option} were given",
                why="both name the text",
                fix="leave one out; in a recipe, `teacher: {file: …}` names it",
            )
        if Path(settings[0]).suffix in (".txt", ".md", ""):
            fitting = "--document" if Path(settings[0]).suffix == ".md" else "--system"
            raise SoftPromptError(
                f"'{settings[0]}' is given as a recipe",
                why="a recipe is a YAML file",
                fix=f"softprompt distill {fitting} {shlex.quote(settings[0])}",
            )
        return load_recipe(settings[0], overrides, method_option_names=option_names()), False
    if text is None:
        raise SoftPromptError(
            "no text was given",
            why="it is what becomes vectors",
            fix="--system FILE, --document FILE or --demonstrations FILE, or a recipe",
        )
    role = "system" if document is None else "document"
    teacher: dict[str, Any] = {"context": None, "role": role}
    teacher |= {"file": str(text)} if texts is None else {"texts": texts}
    tree = recipe_of({"teacher": teacher}, "", chat=True)
    if texts is not None:
        tree["data"]["prompt_field"] = "name"
    recipe = recipe_from_dict(tree, None, overrides, method_option_names=option_names())
    any_method = not any(s.startswith(("method=", "method.name=")) for s in overrides)
    if _has_chat_template(recipe.model.id) or any(s.startswith("template.chat=") for s in overrides):
        return recipe, any_method
    log("note: the model has no chat template, so the text comes ahead of each request as plain text")
    return recipe.with_settings({"template.chat": False}), any_method


def _has_chat_template(model: str) -> bool:
    from ..lm.loading import load_tokenizer

    return bool(getattr(load_tokenizer(model), "chat_template", None))
