"""Arguments of the Python functions are read: models, methods and rows in memory become a recipe.

`tune` and `search` of `softprompt.api` take these arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import methods
from .._system.notes import note
from ..config.load import Recipe, recipe_from_dict
from ..errors import SoftPromptError
from ..lm import quantization
from ..lm.base import LanguageModel
from ..lm.loading import load
from ..methods import from_module
from ..methods.base import SoftPrompt
from ..methods.keyword_arguments import sections
from ..methods.typed_options import MethodOptions

Rows = Iterable[Mapping[str, Any]]


def base_given(lm: Any, tokenizer: Any = None) -> LanguageModel | str:
    """Return the base model: a name, a loaded one, or a transformers model in memory, which is opened.

    Raises SoftPromptError for anything else.
    """
    if isinstance(lm, Path):
        lm = str(lm)
    if isinstance(lm, LanguageModel | str):
        if tokenizer is not None:
            raise SoftPromptError(
                "a tokenizer is given beside a base model that has its own",
                fix="leave it out, or give a model of transformers: tune(model, …, tokenizer=tokenizer)",
            )
        return lm
    return load(lm, tokenizer)


def rows_given(lm: LanguageModel | str, rows: Rows | str, dev: Rows | str | None) -> tuple[dict, dict]:
    """Return the model and the rows that are in memory already, as arguments of `prepare`."""
    base = {"lm": None if isinstance(lm, str) else lm}
    return base, {
        "rows": None if isinstance(rows, str) else rows,
        "dev_rows": None if isinstance(dev, str) else dev,
    }


def method_given(method: str | MethodOptions | SoftPrompt) -> tuple[str | MethodOptions, SoftPrompt | None]:
    """Return a method by name or options, and the module that is its start, where one is given."""
    if not isinstance(method, SoftPrompt):
        return method, None
    chosen = from_module.options_of(method)
    if from_module.is_for_this_process(chosen.name):
        kind = type(method).__name__
        note(
            f"{kind} is no registered method. What is saved, as '{chosen.name}', opens in this process; "
            f"others need softprompt.methods.register('{chosen.name}', {kind}) first."
        )
    return chosen, method


def method_section(method: str | MethodOptions) -> dict[str, Any]:
    if isinstance(method, MethodOptions):
        return method.to_recipe()
    if not isinstance(method, str):
        methods.find(method)  # the error
    return {"name": method}


def recipe_of(
    lm, method, rows, dev, output, task, template, prompt_field, options, track, settings
) -> Recipe:
    """Make a recipe from the arguments of `tune`."""
    named = sections(settings, "tune")
    if not isinstance(lm, str) and named["model"]:
        raise SoftPromptError(
            f"{' and '.join(named['model'])} cannot be set for a model that is loaded",
            why="they say how a model is loaded",
            fix="give them to softprompt.load, or give the model's name",
        )
    given = named["model"]
    for key in {"quantization", "quantization_config"} & set(given):
        given[key] = quantization.plain(quantization.configuration(given[key]))
    if "dtype" in named["train"]:
        named["train"]["dtype"] = str(named["train"]["dtype"]).removeprefix("torch.")
    return recipe_from_dict(
        {
            "model": {"id": lm, **given} if isinstance(lm, str) else lm.origin.recipe(lm.name),
            "data": {
                **named["data"],
                "train": rows if isinstance(rows, str) else "rows in memory",
                "dev": dev if isinstance(dev, str) else None,
                "prompt_field": prompt_field,
            },
            "template": {**named["template"], **(template or {})},
            "task": {**named["task"], **({"kind": task} if isinstance(task, str) else task)},
            "method": {**method_section(method), **named["method"], **(options or {})},
            "base": named["base"],
            "train": named["train"],
            **({"teacher": named["teacher"]} if named["teacher"] else {}),
            "output": str(output),
            "track": track,
        }
    )
