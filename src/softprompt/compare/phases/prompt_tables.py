"""Tables of prompts: the same prompts in a table as it grows, and prompts that come once all is trained.

What is measured is defined in docs/measures.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ... import methods
from ..._system.memory import peak_memory
from ...artifacts import artifact as artifacts
from ...artifacts.artifact import Artifact
from ...artifacts.manifest import STATE
from ...config.load import recipe_from_dict
from ...config.schema import Recipe
from ...data.sources import read_rows
from ...data.spelling import meant
from ...evaluation.evaluator import evaluator_of
from ...lm.base import LanguageModel
from ...lm.features import size
from ...methods.base import Setting, SoftPrompt
from ...training.prepare import Prepared, prepare
from ...training.tune import Run, tune_many
from ..model_pool import forget, frozen_base
from ..store import Folder, Record
from ..trials import Trial
from .score import told

START = ("text", "artifact", "transfer")  # options that only say where vectors begin


def grow(trial: Trial, folder: Folder) -> Record:
    """A table of some of the prompts, trained on their rows; the watched ones' test rows scored."""
    recipe, field = recipe_from_dict(trial.recipe), trial.recipe["data"]["prompt_field"]
    names, watched = trial.about["prompts"], trial.about["watched"]
    train, dev, test = (
        [row for row in read_rows(folder.rows(split), split=split) if meant(str(row[field]), of) is not None]
        for split, of in (("train", names), ("dev", names), ("test", watched))
    )
    # few rows may leave a prompt without dev rows: then what is kept is chosen by its training rows
    return _tuned(trial, _prepared(recipe, train, dev or train), test)


def join(trial: Trial, folder: Folder) -> Record:
    """Prompts that no training saw, tuned on a few rows each, beside what the final trial has for all.

    What all prompts share (a generator, a shared prompt, a reparameterization) is the final's, and stays.
    """
    final = artifacts.load(folder.artifact(trial.about["final"]))
    few = read_rows(folder.rows(trial.about["train"]))
    prepared = _prepared(recipe_from_dict(trial.recipe), few, few)
    shared = share(prepared.method, final, prepared.lm) if prepared.recipe.base.mode == "frozen" else []
    record = _tuned(trial, prepared, read_rows(folder.rows(trial.about["split"]), split="test"))
    return record | {"shared": len(shared)}


def share(method: SoftPrompt, final: Artifact, lm: LanguageModel) -> list[str]:
    """Give `method` what `final`'s prompts share, and hold it fixed; the names of it."""
    own = of_each_prompt(final, lm)
    saved = final.tensors(STATE)
    common = {name: tensor for name, tensor in saved.items() if name not in own}
    method.load_state_dict(common, strict=False)
    for name, parameter in method.named_parameters():
        if name in common:
            parameter.requires_grad_(False)
    return sorted(common)


def of_each_prompt(final: Artifact, lm: LanguageModel) -> set[str]:
    """The tensors that grow with the number of prompts."""
    options = {k: v for k, v in final.manifest["options"].items() if k not in START}
    if "init" in options:
        options["init"] = "vocab"

    def shapes(*prompts: str) -> dict[str, Any]:
        setting = Setting(lm, prompts, feature_size=lambda reads: size(lm, reads))
        made = methods.build(final.manifest["method"], setting, options)
        return {name: tensor.shape for name, tensor in made.state_dict().items()}

    one, two = shapes("one"), shapes("one", "two")
    return {name for name in one if one[name] != two[name]}


def _prepared(recipe: Recipe, train: Sequence[Any], dev: Sequence[Any]) -> Prepared:
    lm = frozen_base(recipe)
    if lm is None:
        forget()
    return prepare(recipe, lm=lm, rows=train, dev_rows=dev)


def _tuned(trial: Trial, prepared: Prepared, rows: Sequence[Any]) -> Record:
    """Train, and score the rows."""
    started = time.perf_counter()
    run: Run = tune_many([prepared], overwrite=True, text_rows=0)[0]
    prepared, outcome, text_rows = run.prepared, run.outcome, trial.about["text_rows"]
    examples = prepared.encoder.encode_rows(rows)
    found = evaluator_of(prepared.recipe, prepared.lm, prepared.encoder).run(
        prepared.method, examples, text_rows=text_rows
    )
    record = told(found, examples, prepared.encoder, text_rows, started)
    return record | {
        "steps": outcome.step,
        "best_step": outcome.best_step,
        "history": outcome.history,
        "dev": {name: score.value for name, score in run.dev.metrics.items()},
        "prompts": list(prepared.prompts),
        "cost": {
            "train_seconds": outcome.seconds,
            "trained_parameters": prepared.trained_parameters,
            "peak_memory_bytes": peak_memory(),
        },
    }
