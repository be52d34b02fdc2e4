"""Trains tables of growing size with the same prompts, and prompts that are added after training.

docs/measures.md defines what is measured.
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
from ..records.store import Folder
from ..records.types import Result
from ..trials import Trial
from .model_pool import forget, frozen_base
from .score import score_reference, scored


def grow(trial: Trial, folder: Folder) -> Result:
    """Train a table of some of the prompts on their rows, and score the watched prompts' test rows."""
    recipe, field, about = recipe_from_dict(trial.recipe), trial.recipe["data"]["prompt_field"], trial.about
    train, dev, test = (
        [row for row in read_rows(folder.rows(split), split=split) if meant(str(row[field]), of) is not None]
        for split, of in (("train", about["prompts"]), ("dev", about["prompts"]), ("test", about["watched"]))
    )
    # few rows may leave a prompt without dev rows: then its training rows choose what is kept
    return _tuned(trial, _prepared(recipe, train, dev or train), test)


def add(trial: Trial, folder: Folder) -> Result:
    """Tune prompts that no training saw on a few rows each, beside what the final trial has for all.

    Tensors that all prompts share (a generator, a shared prompt, a reparameterization) are the final's, and
    stay as they are. A reference trains nothing and is scored on the same rows.
    """
    if "reference" in trial.about:
        return score_reference(trial, folder)
    final = artifacts.load(folder.artifact(trial.about["final"]))
    few = read_rows(folder.rows(trial.about["train"]))
    prepared = _prepared(recipe_from_dict(trial.recipe), few, few)
    shared = share(prepared.method, final, prepared.lm) if prepared.recipe.base.mode == "frozen" else []
    result = _tuned(trial, prepared, read_rows(folder.rows(trial.about["split"]), split="test"))
    result["shared"] = len(shared)
    return result


def share(method: SoftPrompt, final: Artifact, lm: LanguageModel) -> list[str]:
    """Give `method` the tensors that `final`'s prompts share, hold them fixed, and return their names."""
    separate = of_each_prompt(final, lm)
    common = {name: tensor for name, tensor in final.tensors(STATE).items() if name not in separate}
    method.load_state_dict(common, strict=False)
    for name, parameter in method.named_parameters():
        if name in common:
            parameter.requires_grad_(False)
    return sorted(common)


def of_each_prompt(final: Artifact, lm: LanguageModel) -> set[str]:
    """Return the names of the tensors that grow with the number of prompts."""
    options = methods.options_to_load(final.manifest["method"], final.manifest["options"])

    def shapes(*prompts: str) -> dict[str, Any]:
        setting = Setting(lm, prompts, feature_size=lambda reads: size(lm, reads))
        method = methods.build(final.manifest["method"], setting, options)
        return {name: tensor.shape for name, tensor in method.state_dict().items()}

    single, double = shapes("first"), shapes("first", "second")
    return {name for name in single if single[name] != double[name]}


def _prepared(recipe: Recipe, train: Sequence[Any], dev: Sequence[Any]) -> Prepared:
    lm = frozen_base(recipe)
    if lm is None:
        forget()
    return prepare(recipe, lm=lm, rows=train, dev_rows=dev)


def _tuned(trial: Trial, prepared: Prepared, rows: Sequence[Any]) -> Result:
    """Train, and score the rows."""
    started = time.perf_counter()
    run: Run = tune_many([prepared], overwrite=True, text_rows=0)[0]
    prepared, outcome, text_rows = run.prepared, run.outcome, trial.about["text_rows"]
    examples = prepared.encoder.encode_rows(rows)
    evaluator = evaluator_of(prepared.recipe, prepared.lm, prepared.encoder)
    evaluation = evaluator.run(prepared.method, examples, text_rows=text_rows)
    result = scored(evaluation, examples, prepared.encoder, text_rows, started)
    return {
        **result,
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
