"""The Python API has `load`, `tune`, `search`, `compare_methods`, `open_prompt`, `concatenate` …

The command line uses the same code.

lm = softprompt.load("smollm2")
tuned = softprompt.tune(lm, "prefix-tuning", rows, task="classification", output="runs/mood")
tuned.generate("What a film!")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import methods
from ._system.display import shown
from ._system.launch import joined
from ._system.notes import note
from ._system.quiet import quietly
from .artifacts import compose
from .artifacts.compose import AVERAGE, CONCATENATE, Operation, scaling
from .build import saved_base
from .compare.experiment import Hooks as ComparisonHooks
from .compare.experiment import compare
from .compare.report.read import comparison
from .compare.report.schema import Comparison
from .compare.running.executors import Serial
from .config.load import Recipe, load_recipe, recipe_from_dict
from .data.row_files import write_rows
from .distillation.run import Distilled, distil, recipe_of
from .errors import SoftPromptError
from .lm import quantization
from .lm.base import LanguageModel
from .lm.loading import load
from .methods import from_module
from .methods.base import SoftPrompt
from .methods.keyword_arguments import in_python, sections
from .methods.typed_options import MethodOptions, written_out
from .tracking.registry import separated
from .training import sweep
from .training.output_folder import check_room
from .training.prepare import prepare
from .training.sweep_estimate import say_ahead
from .training.tune import Hooks, Run, tune_many
from .training.tune import tune as tune_prepared
from .tuned import Rows, Tuned, open_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@in_python
@quietly
def tune(
    lm: LanguageModel | PreTrainedModel | str | Path,
    method: str | MethodOptions | SoftPrompt,
    rows: Rows | str,
    *,
    dev: Rows | str | None = None,
    output: str | Path = "runs/prompt",
    task: str | Mapping[str, Any] = "generation",
    template: Mapping[str, Any] | None = None,
    prompt_field: str | None = None,
    options: Mapping[str, Any] | None = None,
    track: Any = None,
    hooks: Hooks | None = None,
    overwrite: bool = False,
    restart: bool = False,
    progress: bool | None = None,
    tokenizer: Any = None,
    **settings: Any,
) -> Tuned:
    """Tune a prompt or prefix on rows (dicts, or a file) and save it to `output`.

    `lm` is a loaded model, or the name to load one by (with a head, where the task needs one), or a
    transformers model in memory with its `tokenizer`: `tuned.lm.close()` gives it back as it was.
    `task` is "generation", "classification", …, or a mapping of the recipe's task section.
    `settings` have the names of the command line, in whatever section of a recipe they belong: `length=4` (an
    option of the method; `options` may hold them too), `steps=100`, `max_input_tokens=66`, `base="lora"`.
    `track` names trackers that follow the run: "tensorboard", ["mlflow", {"wandb": {"project": "mood"}}], or
    objects with `log(values, step)` and `finish()` (docs/tracking.md).
    `method` may be a `SoftPrompt` that you built for this model: a copy of it is trained.
    A run that was interrupted is resumed, unless `restart`; a finished one is returned as it is, unless
    `overwrite`, which replaces the content of `output`. `progress` shows on stderr how far the run is and the
    time left; by default only in a terminal or a notebook. Raises SoftPromptError, which says what happened,
    why and how to fix it.
    """
    lm = base_given(lm, tokenizer)
    base, data = _given(lm, rows, dev)
    method, module = _taken(method)
    named, trackers = separated(track)
    recipe = _recipe(lm, method, rows, dev, output, task, template, prompt_field, options, named, settings)
    with shown(progress), joined(recipe.train.devices) as world:
        world.first(lambda: check_room(recipe, restart=restart, overwrite=overwrite))
        prepared = prepare(recipe, **base, **data, module=module, world=world)
        run = tune_prepared(prepared, hooks=hooks, restart=restart, overwrite=overwrite, trackers=trackers)
        return _tuned(run)


@in_python
@quietly
def distill(
    lm: LanguageModel | str | Path,
    text: str,
    requests: Rows | Sequence[str] | str | None = None,
    *,
    field: str | None = None,
    count: int = 96,
    vectors: int = 64,
    method: str | MethodOptions = "prefix-tuning",
    output: str | Path = "runs/distilled",
    chat: bool | None = None,
    hooks: Hooks | None = None,
    overwrite: bool = False,
    restart: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> Distilled:
    """Turn a text that every request repeats into vectors, and measure how much of its effect they keep.

    `requests` are texts, rows, or a file of rows, whose field `field` holds a request; some are kept apart to
    measure on. Without them the model writes `count` requests itself. With `chat` (default: where the model
    has a chat template) the text is the system text, else it comes ahead of each request. `vectors` is the
    method's `length`; `settings` are those of `tune`. The result has `tuned`, `share` (the share of the
    text's effect with its interval) and `report()`.
    Raises SoftPromptError for a text or requests that cannot be used.
    """
    base = base_given(lm)
    loaded = load(base) if isinstance(base, str) else base
    named = sections(settings, "distill")
    chosen = {**_method(method), "length": vectors, **named["method"]}
    changes = {name: named[name] for name in ("data", "template", "task", "train", "base")}
    tree = recipe_of({**changes, "output": str(output)}, text, chat=_is_chat(loaded, chat))
    tree["model"] = loaded.origin.recipe(loaded.name)
    tree["method"] = chosen if chosen["name"] != tree["method"]["name"] else tree["method"] | chosen
    recipe = recipe_from_dict(tree, method_option_names=methods.option_names())
    check_room(recipe, restart=restart, overwrite=overwrite)
    with shown(progress):
        return distil(
            recipe,
            requests,
            field=field,
            count=count,
            lm=loaded,
            hooks=hooks,
            restart=restart,
            overwrite=overwrite,
        )


def _is_chat(lm: LanguageModel, chat: bool | None) -> bool:
    return bool(getattr(lm.tokenizer, "chat_template", None)) if chat is None else chat


@in_python
@quietly
def search(
    lm: LanguageModel | PreTrainedModel | str | Path,
    method: str | MethodOptions | SoftPrompt,
    rows: Rows | str,
    over: Mapping[str, Sequence[Any]],
    *,
    dev: Rows | str | None = None,
    output: str | Path = "runs/search",
    task: str | Mapping[str, Any] = "generation",
    template: Mapping[str, Any] | None = None,
    prompt_field: str | None = None,
    options: Mapping[str, Any] | None = None,
    track: Any = None,
    hooks: Hooks | None = None,
    overwrite: bool = False,
    restart: bool = False,
    progress: bool | None = None,
    tokenizer: Any = None,
    **settings: Any,
) -> list[Tuned]:
    """Tune with every combination of some settings, side by side in one run; the best result is first.

    `over` has the names of the command line: `{"lr": [1e-3, 1e-2], "length": [8, 16], "seed": [0, 1, 2]}`.
    Each result is saved in its own folder in `output`, and is a run of its own in each tracker of `track`.
    With `progress`, the expected time is shown first.
    """
    lm = base_given(lm, tokenizer)
    base, data = _given(lm, rows, dev)
    method, module = _taken(method)
    if module is not None and (options_of_it := sorted(set(over) & methods.option_names())):
        raise SoftPromptError(
            f"{options_of_it[0]} cannot be searched for a module that is built",
            why="it is an option that a method is built with",
            fix="search settings of the training (lr, steps, …), or give the method's name",
        )
    named, trackers = separated(track)
    whole = _recipe(lm, method, rows, dev, output, task, template, prompt_field, options, named, settings)
    recipes = []
    for setting in sweep.settings(over):
        folder = str(Path(output) / sweep.name_of(setting).replace("/", "_"))
        changes = {"output": folder, **setting}
        recipes.append(whole.with_settings(changes, method_option_names=methods.option_names()))
    with shown(progress), joined(whole.train.devices) as world:
        for recipe in recipes:
            world.first(lambda recipe=recipe: check_room(recipe, restart=restart, overwrite=overwrite))
        prepared = sweep.prepare_settings(recipes, **base, **data, module=module, world=world)
        say_ahead(prepared, restart=restart, overwrite=overwrite)
        runs = tune_many(prepared, hooks=hooks, restart=restart, overwrite=overwrite, trackers=trackers)
    return [_tuned(run) for run in sorted(runs, key=lambda run: run.key, reverse=True)]


def _recipe(lm, method, rows, dev, output, task, template, prompt_field, options, track, settings) -> Recipe:
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
            "method": {**_method(method), **named["method"], **(options or {})},
            "base": named["base"],
            "train": named["train"],
            "output": str(output),
            "track": track,
        }
    )


def _taken(method: str | MethodOptions | SoftPrompt) -> tuple[str | MethodOptions, SoftPrompt | None]:
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


def _method(method: str | MethodOptions) -> dict[str, Any]:
    return {"name": method} if isinstance(method, str) else method.to_recipe()


def _given(lm: LanguageModel | str, rows: Rows | str, dev: Rows | str | None) -> tuple[dict, dict]:
    """Return the model and the rows that are in memory already, as arguments of `prepare`."""
    base = {"lm": None if isinstance(lm, str) else lm}
    return base, {
        "rows": None if isinstance(rows, str) else rows,
        "dev_rows": None if isinstance(dev, str) else dev,
    }


def _tuned(run: Run) -> Tuned:
    prepared = run.prepared
    return Tuned(prepared.lm, run.artifact, prepared.method, prepared.encoder, prepared.recipe)


@quietly
def compare_methods(
    recipe: Recipe | str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    *,
    rows: Rows | None = None,
    dev: Rows | None = None,
    test: Rows | None = None,
    workers: int | None = None,
    hooks: ComparisonHooks | None = None,
    report: bool = True,
    progress: bool | None = None,
) -> Comparison:
    """Compare methods on a recipe's rows: its `compare` section says which, and how (docs/compare.md).

    `recipe` is a file, a mapping, or a `Recipe`. Trials that were run already are not run again. The result
    is the comparison as `softprompt.compare.report` reads it. (`softprompt.compare` is the package that this
    runs.) `rows`, `dev` and `test` are rows in memory in place of the recipe's; they are written into the
    folder, because worker processes read them.
    """
    if not isinstance(recipe, Recipe | Mapping | str | Path):
        raise SoftPromptError(
            f"a comparison needs a recipe, not {type(recipe).__name__}",
            fix="give a file, a mapping, or a Recipe (docs/compare.md)",
        )
    in_memory = {"train": rows, "dev": dev, "test": test}
    if isinstance(recipe, Recipe):
        read = recipe
    elif isinstance(recipe, Mapping):
        tree = written_out(from_module.named(recipe))
        if rows is not None and "data" not in tree:
            tree["data"] = "rows in memory"
        read = recipe_from_dict(tree, method_option_names=methods.option_names())
    else:
        read = load_recipe(recipe, method_option_names=methods.option_names())
    source = str(recipe) if isinstance(recipe, (str, Path)) else ""
    place = Path(folder or read.compare.output or f"{read.output}-compare")
    files = {
        f"data.{split}": str(write_rows(place / "given", part, split, first=read.data.limit))
        for split, part in in_memory.items()
        if part is not None
    }
    if files:
        read = read.with_settings(files, method_option_names=methods.option_names())
    # workers are other processes, which do not know a module of this one
    here = Serial() if any(map(from_module.is_for_this_process, _compared(read))) else None
    with shown(progress):
        done = compare(read, folder, workers=workers, hooks=hooks, report=report, source=source, on=here)
    return comparison(done.folder)


def _compared(recipe: Recipe) -> list[Any]:
    """Return the names of the methods that a recipe compares, as far as it names them."""
    named = recipe.compare.methods or []
    inside = [each.get("method") for each in named.values()] if isinstance(named, dict) else []
    return [recipe.method.name, *named, *inside]


@quietly
@in_python
def concatenate(sources: Sequence[str | Path], output: str | Path, lm: LanguageModel | None = None) -> Tuned:
    """Join several tuned prompts (`FOLDER`, or `FOLDER:NAME`) of one base into one, in order.

    The result is written to the new folder `output`, with template, task and labels of the first prompt.
    """
    return _compose(CONCATENATE, sources, output, lm)


@quietly
@in_python
def average(sources: Sequence[str | Path], output: str | Path, lm: LanguageModel | None = None) -> Tuned:
    """Average several tuned prompts of the same shape; see `concatenate`."""
    return _compose(AVERAGE, sources, output, lm)


@quietly
@in_python
def scale(source: str | Path, strength: float, output: str | Path, lm: LanguageModel | None = None) -> Tuned:
    """Change the strength of a tuned prompt (1: as trained; `arithmetic.scale` says what 0 means)."""
    return _compose(scaling(strength), [source], output, lm)


def _compose(
    operation: Operation, sources: Sequence[str | Path], output: str | Path, lm: LanguageModel | None
) -> Tuned:
    opened = [compose.open_source(source) for source in sources]
    operation.check(len(opened))
    lm = lm or saved_base(opened[0].artifact)
    compose.compose(operation, opened, output, lm)
    return open_prompt(output, lm)


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
