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
from ._system.quiet import quietly
from .artifacts import compose
from .artifacts.compose import AVERAGE, Operation, concatenating, scaling
from .build import saved_base
from .compare.function import compare_methods
from .distillation.function import distill
from .errors import SoftPromptError
from .lm.base import LanguageModel
from .methods.base import SoftPrompt
from .methods.keyword_arguments import in_python
from .methods.typed_options import MethodOptions
from .tracking.registry import separated
from .training import sweep
from .training.arguments import base_given, method_given, recipe_of, rows_given
from .training.output_folder import check_room
from .training.prepare import prepare
from .training.sweep_estimate import say_ahead
from .training.tracked import check_objects
from .training.tune import Hooks, Run, tune_many
from .training.tune import tune as tune_prepared
from .tuned import Rows, Tuned, open_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Tuned", "average", "compare_methods", "concatenate", "distill", "open_prompt", "scale", "search"]
__all__ += ["tune"]


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
    transformers model in memory with its `tokenizer`: `tuned.lm.close()` gives it back as it was. `dev` are
    the rows that choose the best step (default: a tenth of `rows`), and `prompt_field` is the column that
    names each row's prompt. `task` is "generation", "classification", …, or a mapping of the recipe's task
    section; `template` is a mapping of its template section. `settings` have the names of the command line,
    in whatever section of a recipe they belong: `length=4` (an option of the method; `options` may hold them
    too), `steps=100`, `max_input_tokens=66`, `base="lora"`. `track` names trackers that follow the run:
    "tensorboard", ["mlflow", {"wandb": {"project": "mood"}}], or objects with `log(values, step)` and
    `finish()` (docs/tracking.md). `method` may be a `SoftPrompt` that you built for this model: a copy of it
    is trained. A run that was interrupted is resumed, unless `restart`; a finished one is returned as it is,
    unless `overwrite`, which replaces the content of `output`. `progress` shows on stderr how far the run is
    and the time left; by default only in a terminal or a notebook. `hooks` (`softprompt.training.tune.Hooks`)
    are called along the way. Raises SoftPromptError, which says what happened, why and how to fix it.
    """
    lm = base_given(lm, tokenizer)
    base, data = rows_given(lm, rows, dev)
    method, module = method_given(method)
    named, trackers = separated(track)
    recipe = recipe_of(lm, method, rows, dev, output, task, template, prompt_field, options, named, settings)
    with shown(progress), joined(recipe.train.devices) as world:
        world.first(lambda: check_room(recipe, restart=restart, overwrite=overwrite))
        prepared = prepare(recipe, **base, **data, module=module, world=world)
        run = tune_prepared(prepared, hooks=hooks, restart=restart, overwrite=overwrite, trackers=trackers)
        return _tuned(run)


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
    With `progress`, the expected time is shown first. The other arguments are those of `tune`. Raises
    SoftPromptError before anything is trained, for a combination that is not valid too.
    """
    lm = base_given(lm, tokenizer)
    base, data = rows_given(lm, rows, dev)
    method, module = method_given(method)
    options_of_it = sorted(name for name in over if name in methods.option_names())
    if module is not None and options_of_it:
        raise SoftPromptError(
            f"{options_of_it[0]} cannot be searched for a module that is built",
            why="it is an option that a method is built with",
            fix="search settings of the training (lr, steps, …), or give the method's name",
        )
    named, trackers = separated(track)
    whole = recipe_of(lm, method, rows, dev, output, task, template, prompt_field, options, named, settings)
    recipes = []
    for setting in sweep.settings(over):
        folder = str(Path(output) / sweep.name_of(setting).replace("/", "_"))
        changes = {"output": folder, **setting}
        recipes.append(whole.with_settings(changes, method_option_names=methods.option_names()))
    check_objects(trackers, len(recipes))
    with shown(progress), joined(whole.train.devices) as world:
        for recipe in recipes:
            world.first(lambda recipe=recipe: check_room(recipe, restart=restart, overwrite=overwrite))
        prepared = sweep.prepare_settings(recipes, **base, **data, module=module, world=world)
        say_ahead(prepared, restart=restart, overwrite=overwrite)
        runs = tune_many(prepared, hooks=hooks, restart=restart, overwrite=overwrite, trackers=trackers)
    return [_tuned(run) for run in sorted(runs, key=lambda run: run.key, reverse=True)]


def _tuned(run: Run) -> Tuned:
    prepared = run.prepared
    return Tuned(prepared.lm, run.artifact, prepared.method, prepared.encoder, prepared.recipe)


@quietly
@in_python
def concatenate(
    sources: Sequence[str | Path],
    output: str | Path,
    lm: LanguageModel | None = None,
    *,
    keep_sinks: bool = False,
    keep_positions: bool = False,
) -> Tuned:
    """Join several tuned prompts (`FOLDER`, or `FOLDER:NAME`) of one base into one, in order.

    `sources` are these prompts, and `lm` is their base where it is loaded already. The result is written to
    the new folder `output`, with template, task and labels of the first prompt. Of prefixes that start with
    the attention sink (`freeze_first`), all but the first lose it; keys move to positions that follow each
    other. `keep_sinks` and `keep_positions` leave this out, for comparing. Raises SoftPromptError for prompts
    of several bases, for methods that cannot be joined, and where `output` holds something.
    """
    operation = concatenating(keep_sinks=keep_sinks, keep_positions=keep_positions)
    return _compose(operation, sources, output, lm)


@quietly
@in_python
def average(sources: Sequence[str | Path], output: str | Path, lm: LanguageModel | None = None) -> Tuned:
    """Average several tuned prompts of the same shape; the arguments are those of `concatenate`.

    Raises SoftPromptError for other shapes, and as `concatenate` does.
    """
    return _compose(AVERAGE, sources, output, lm)


@quietly
@in_python
def scale(source: str | Path, strength: float, output: str | Path, lm: LanguageModel | None = None) -> Tuned:
    """Change the strength of a tuned prompt: 1 leaves it as trained.

    A `strength` of 0 is the plain model for gated adapters alone: of a prefix, the values are multiplied by
    it; soft tokens move towards the nearest tokens of the vocabulary. `source` is the prompt (`FOLDER`, or
    `FOLDER:NAME`), `output` a new folder, and `lm` the base where it is loaded already. Raises
    SoftPromptError where a gate cannot be as strong, and as `concatenate` does.
    """
    return _compose(scaling(strength), [source], output, lm)


def _compose(
    operation: Operation, sources: Sequence[str | Path], output: str | Path, lm: LanguageModel | None
) -> Tuned:
    opened = [compose.open_source(source) for source in sources]
    operation.check(len(opened))
    lm = lm or saved_base(opened[0].artifact)
    compose.compose(operation, opened, output, lm)
    return open_prompt(output, lm)
