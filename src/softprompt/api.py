"""The Python API: `load`, `tune`, `search`, `compare_methods`, `open_prompt`, `concatenate` …

The command line does the same through the same code.

lm = softprompt.load("smollm2")
tuned = softprompt.tune(lm, "prefix-tuning", rows, task="classification", output="runs/mood")
tuned.generate("What a film!")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import artifact as artifacts
from . import composition, methods, together
from .ahead import say_ahead
from .answering import listed, texts
from .arguments import base_given, in_python, sections
from .artifact import Artifact
from .compare.engine import Hooks as ComparisonHooks
from .compare.engine import compare
from .composition import AVERAGE, CONCATENATE, Operation, scaling
from .config import Recipe, load_recipe, recipe_from_dict
from .data.encode import Encoder
from .data.sources import read_rows
from .display import shown
from .errors import SoftPromptError
from .evaluate import Evaluation, Evaluator
from .finished import check_room
from .lm.base import LanguageModel
from .methods.base import Setting, SoftPrompt
from .prepare import check_head, encoder_of, prepare, saved_base, template_of
from .quiet import quietly
from .report.read import comparison
from .report.schema import Comparison
from .tuning import Hooks, Run, evaluator_of, tune_many
from .tuning import tune as tune_prepared

Rows = Iterable[Mapping[str, Any]]
Inputs = str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]


@dataclass(frozen=True)
class Tuned:
    """A tuned prompt on its base model, ready to use."""

    lm: LanguageModel
    artifact: Artifact
    method: SoftPrompt
    encoder: Encoder
    recipe: Recipe

    @property
    def metrics(self) -> dict[str, float]:
        """On the dev rows."""
        return self.artifact.manifest["dev"]["metrics"]

    def evaluator(self) -> Evaluator:
        """How its rows are scored."""
        return evaluator_of(self.recipe, self.lm, self.encoder)

    @quietly
    @in_python
    def evaluate(
        self, rows: Rows | str, *, prompt: str | None = None, progress: bool | None = None
    ) -> Evaluation:
        """Metrics with intervals on rows (or a file of them). `progress` as in `tune`."""
        with shown(progress):
            examples = self.encoder.encode_rows(read_rows(rows, split="test"), prompt=prompt)
            return self.evaluator().run(self.method, examples)

    @quietly
    @in_python
    def generate(self, inputs: Inputs, *, prompt: str | None = None, **options: Any) -> Any:
        """The answer to an input: generated text, or the likeliest label or choice.

        One input (a text, or a row as a mapping) gives one text; a list, or any other iterable, gives a list,
        an empty one for none. `num_return_sequences=N` gives a list of N texts in place of each. Tags come as
        one text, parted by spaces; a regression's number as text too.

        A string stands for the template's only field. `options` are transformers' generation options (see
        docs/running.md); a prompt that writes no text takes none. Raises SoftPromptError for an unknown one.
        """
        many, single = listed(inputs)
        if not many:
            return []
        name = (
            self.artifact.prompts[self.artifact.index(prompt)] if prompt or not _names_prompt(many) else None
        )
        wanted = options.get("max_new_tokens")
        encoder = self.encoder.settled(wanted if isinstance(wanted, int) and wanted > 0 else None)
        examples = [encoder.encode(row, with_target=False, prompt=name) for row in many]
        found = texts(self.lm, self.method, self.encoder, examples, self.recipe.task.max_new_tokens, options)
        return found[0] if single else found


@in_python
@quietly
def tune(
    lm: LanguageModel | str,
    method: str,
    rows: Rows | str,
    *,
    dev: Rows | str | None = None,
    output: str | Path = "runs/prompt",
    task: str | Mapping[str, Any] = "generation",
    template: Mapping[str, Any] | None = None,
    prompt_field: str | None = None,
    options: Mapping[str, Any] | None = None,
    hooks: Hooks | None = None,
    overwrite: bool = False,
    restart: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> Tuned:
    """Tune a prompt or prefix on rows (dicts, or a file) and save it to `output`.

    An unfinished run of the same is gone on with; a finished one is given back. `overwrite` trains it anew.
    `lm`: a loaded model, or the name to load one by (with a head, where the task needs one).
    `task`: "generation", "classification", …, or a mapping of the recipe's task section.
    `settings` are named as on the command line, whatever section of a recipe they belong to: `length=4` (an
    option of the method; `options` may hold them too), `steps=100`, `max_input_tokens=66`, `base="lora"`.
    A run that was interrupted goes on, unless `restart`; `overwrite` replaces what `output` holds.
    `progress` shows what is done and the time left, on stderr; by itself in a terminal or a notebook only.
    Raises SoftPromptError, which says what, why and how to mend it.
    """
    lm = base_given(lm)
    base, data = _given(lm, rows, dev)
    recipe = _recipe(lm, method, rows, dev, output, task, template, prompt_field, options, settings)
    check_room(recipe, restart=restart, overwrite=overwrite)
    with shown(progress):
        prepared = prepare(recipe, **base, **data)
        return _tuned(tune_prepared(prepared, hooks=hooks, restart=restart, overwrite=overwrite))


@in_python
@quietly
def search(
    lm: LanguageModel | str,
    method: str,
    rows: Rows | str,
    over: Mapping[str, Sequence[Any]],
    *,
    dev: Rows | str | None = None,
    output: str | Path = "runs/search",
    task: str | Mapping[str, Any] = "generation",
    template: Mapping[str, Any] | None = None,
    prompt_field: str | None = None,
    options: Mapping[str, Any] | None = None,
    hooks: Hooks | None = None,
    overwrite: bool = False,
    restart: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> list[Tuned]:
    """`tune` with every combination of some settings, side by side in one run; best on the dev rows first.

    `over` is by name as on the command line: `{"lr": [1e-3, 1e-2], "length": [8, 16], "seed": [0, 1, 2]}`.
    Each is saved in a folder of its own in `output`. Under `progress` it says ahead how long it will take.
    """
    lm = base_given(lm)
    base, data = _given(lm, rows, dev)
    whole = _recipe(lm, method, rows, dev, output, task, template, prompt_field, options, settings).to_dict()
    recipes = []
    for setting in together.settings(over):
        chosen = [f"{key}={json.dumps(value)}" for key, value in setting.items()]
        folder = Path(output) / together.name_of(setting).replace("/", "_")
        recipes.append(
            recipe_from_dict(
                {**whole, "output": str(folder)}, overrides=chosen, method_option_names=methods.option_names()
            )
        )
    for recipe in recipes:
        check_room(recipe, restart=restart, overwrite=overwrite)
    with shown(progress):
        prepared = together.prepare_settings(recipes, **base, **data)
        say_ahead(prepared, restart=restart, overwrite=overwrite)
        runs = tune_many(prepared, hooks=hooks, restart=restart, overwrite=overwrite)
    return [_tuned(run) for run in sorted(runs, key=lambda run: run.key, reverse=True)]


def _recipe(lm, method, rows, dev, output, task, template, prompt_field, options, settings) -> Recipe:
    """The recipe that the arguments of `tune` amount to."""
    named = sections(settings, "tune")
    return recipe_from_dict(
        {
            "model": lm if isinstance(lm, str) else lm.name,
            "data": {
                **named["data"],
                "train": rows if isinstance(rows, str) else "rows in memory",
                "dev": dev if isinstance(dev, str) else None,
                "prompt_field": prompt_field,
            },
            "template": {**named["template"], **(template or {})},
            "task": {**named["task"], **({"kind": task} if isinstance(task, str) else task)},
            "method": {**named["method"], **(options or {}), "name": method},
            "base": named["base"],
            "train": named["train"],
            "output": str(output),
        }
    )


def _given(lm: LanguageModel | str, rows: Rows | str, dev: Rows | str | None) -> tuple[dict, dict]:
    """What is in memory already: the model, and the rows."""
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
    workers: int | None = None,
    hooks: ComparisonHooks | None = None,
    report: bool = True,
    progress: bool | None = None,
) -> Comparison:
    """Compare methods on a recipe's rows: its `compare` section says which, and how (docs/compare.md).

    `recipe`: a file, a mapping, or a `Recipe`. What was run already is not run again. Gives back what
    `softprompt.report` reads. (`softprompt.compare` is the package that this runs.)
    """
    if not isinstance(recipe, Recipe | Mapping | str | Path):
        raise SoftPromptError(
            f"a comparison needs a recipe, not {type(recipe).__name__}",
            fix="give a file, a mapping, or a Recipe (docs/compare.md)",
        )
    if isinstance(recipe, Recipe):
        read = recipe
    elif isinstance(recipe, Mapping):
        read = recipe_from_dict(recipe, method_option_names=methods.option_names())
    else:
        read = load_recipe(recipe, method_option_names=methods.option_names())
    source = str(recipe) if isinstance(recipe, (str, Path)) else ""
    with shown(progress):
        done = compare(read, folder, workers=workers, hooks=hooks, report=report, source=source)
    return comparison(done.folder)


@in_python
@quietly
def open_prompt(
    path: str | Path,
    lm: LanguageModel | None = None,
    *,
    model: str | None = None,
    other_base: bool = False,
    plain: bool = False,
) -> Tuned:
    """A saved prompt on its base model (loaded where none is given). Verified; see `artifact.load`.

    `model` names another place to load the base from. `plain` leaves the prompt out: the base model as it
    was, with the prompt's template.
    """
    artifact = artifacts.load(path)
    return opened(artifact, lm or saved_base(artifact, model), other_base=other_base, plain=plain)


def opened(
    artifact: Artifact,
    lm: LanguageModel,
    *,
    other_base: bool = False,
    plain: bool = False,
    encoder: Callable[[Recipe, Artifact], Encoder] | None = None,
) -> Tuned:
    """`open_prompt` of an artifact that was loaded, on a base that was.

    `encoder` gives the encoder, for whoever keeps those of artifacts that are used alike.
    """
    recipe = recipe_from_dict(artifact.manifest["recipe"])
    labels = artifact.manifest["labels"]
    check_head(recipe, labels, lm)
    if plain:
        method = methods.build("none", Setting(lm, artifact.prompts))
    else:
        method = artifact.method(lm, other_base=other_base)
    if encoder is not None:
        return Tuned(lm, artifact, method, encoder(recipe, artifact), recipe)
    made = encoder_of(recipe, lm, template_of(recipe, lm), artifact.prompts, labels)
    return Tuned(lm, artifact, method, made.settled(), recipe)


@quietly
@in_python
def concatenate(sources: Sequence[str | Path], output: str | Path, lm: LanguageModel | None = None) -> Tuned:
    """Several tuned prompts (`FOLDER`, or `FOLDER:NAME`) of one base as one, in order; see `compose`.

    Written to the new folder `output`, with template, task and labels of the first.
    """
    return _compose(CONCATENATE, sources, output, lm)


@quietly
@in_python
def average(sources: Sequence[str | Path], output: str | Path, lm: LanguageModel | None = None) -> Tuned:
    """The mean of several tuned prompts of the same shape, as `concatenate`."""
    return _compose(AVERAGE, sources, output, lm)


@quietly
@in_python
def scale(source: str | Path, strength: float, output: str | Path, lm: LanguageModel | None = None) -> Tuned:
    """A tuned prompt at another strength (1: as trained; what 0 means is in `compose.scale`)."""
    return _compose(scaling(strength), [source], output, lm)


def _compose(
    operation: Operation, sources: Sequence[str | Path], output: str | Path, lm: LanguageModel | None
) -> Tuned:
    opened = [composition.open_source(source) for source in sources]
    operation.check(len(opened))
    lm = lm or saved_base(opened[0].artifact)
    composition.compose(operation, opened, output, lm)
    return open_prompt(output, lm)


def _names_prompt(rows: list) -> bool:
    """Whether rows carry their prompt's name themselves."""
    return any(isinstance(row, Mapping) for row in rows)
