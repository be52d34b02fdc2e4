"""What a tuned prompt, or a reference, makes of a split: metrics, and every row by itself."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ... import methods
from ...artifacts import artifact as artifacts
from ...artifacts.artifact import Artifact
from ...build import encoder_of, template_of
from ...cache import InputCache
from ...cache.folders import cache_place
from ...cache.open import open_inputs
from ...cache.plan import plan_inputs
from ...config.load import recipe_from_dict
from ...config.schema import Recipe
from ...data.encode import Encoder
from ...data.example import Example
from ...data.fewshot import few_shot, stop_options
from ...data.sources import read_rows
from ...data.spelling import distinct, meant
from ...errors import SoftPromptError
from ...evaluation.diagnostics.baselines import tfidf_baseline
from ...evaluation.evaluator import Evaluation, Record, dev_key, evaluator_of
from ...evaluation.metrics import METRICS, compute, default_metrics
from ...lm.base import LanguageModel
from ...methods.base import Setting, SoftPrompt
from ..measures.confidence import confidences
from ..model_pool import base_of, kept
from ..stats.calibration import calibration
from ..store import Folder
from ..trials import Trial


def opened(folder: Folder, final: str) -> tuple[LanguageModel, SoftPrompt, Encoder, Recipe]:
    """A final trial's prompt on its base, ready to be measured."""
    artifact = artifacts.load(folder.artifact(final))
    recipe = recipe_from_dict(artifact.manifest["recipe"])
    lm = base_of(artifact, recipe)
    return lm, artifact.method(lm), _encoder(recipe, lm, artifact), recipe


def score_final(trial: Trial, folder: Folder) -> dict[str, Any]:
    """A final trial on a split."""
    lm, method, encoder, recipe = opened(folder, trial.about["final"])
    started = time.perf_counter()
    examples = encoder.encode_rows(_rows(folder, trial.about["split"]))
    cache, text_rows = _kept_inputs(recipe, lm, method, examples), trial.about["text_rows"]
    found = evaluator_of(recipe, lm, encoder).run(method, examples, cache=cache, text_rows=text_rows)
    return told(found, examples, encoder, trial.about["text_rows"], started)


def _kept_inputs(
    recipe: Recipe, lm: LanguageModel, method: SoftPrompt, examples: Sequence[Example]
) -> InputCache | None:
    """Inputs that are kept on disk, where the next final finds them; in memory they would be of no use."""
    if recipe.train.cache != "disk":
        return None
    plan = plan_inputs(recipe, lm, method, examples, len(examples))
    form, place = recipe.train.cache_dtype, cache_place(recipe)
    (cache,), _ = open_inputs(plan, lm, [examples], reads=method.reads, form=form, place=place)
    return cache


def score_reference(trial: Trial, folder: Folder) -> dict[str, Any]:
    """The plain model, with or without demonstrations, or TF-IDF, on a split."""
    recipe, about, started = recipe_from_dict(trial.recipe), trial.about, time.perf_counter()
    train, rows = _rows(folder, about.get("train", "train")), _rows(folder, about["split"])
    # of the dev rows as in training: no texts are written
    text_rows = about["text_rows"] if trial.phase != "reference" else 0
    if about["reference"] == "tf-idf":
        return _tfidf(recipe, train, rows)
    lm = kept(recipe)
    prompts = _prompts(recipe, train)
    encoder = encoder_of(recipe, lm, template_of(recipe, lm), prompts)
    evaluator, shots = evaluator_of(recipe, lm, encoder), about.get("shots", 0)
    if shots:
        evaluator = replace(evaluator, generate_options=stop_options(encoder))
        examples = few_shot(encoder, train, rows, shots, seed=recipe.train.seed)
    else:
        examples = encoder.encode_rows(rows)
    plain = methods.build("none", Setting(lm, prompts))
    found = evaluator.run(plain, examples, text_rows=text_rows)
    return told(found, examples, encoder, text_rows, started)


def told(
    found: Evaluation, examples: Sequence[Example], encoder: Encoder, text_rows: int | None, started: float
) -> dict[str, Any]:
    """An evaluation as a record holds it."""
    written = len(examples)
    if encoder.kind == "generation" and text_rows is not None:
        written = min(written, text_rows)
    sure = confidences(found.records) if all(r.scores for r in found.records) else None
    rows = []
    for i, (record, example) in enumerate(zip(found.records, examples, strict=True)):
        target = (example.candidates or ()).index(example.target_ids) if example.candidates else None
        rows.append(
            _row(record, record.prediction if i < written else None)
            | {
                "label": None if sure is None else sure[i].label,
                "target": target,
                "confidence": None if sure is None else sure[i].confidence,
            }
        )
    return {
        "status": "done",
        "error": None,
        "dev_key": [x if math.isfinite(x) else None for x in dev_key(found).key],
        "metrics": {name: asdict(value) for name, value in found.metrics.items()},
        "calibration": _calibration(sure),
        "examples": rows,
        "seconds": time.perf_counter() - started,
    }


def _row(record: Record, prediction: str | None) -> dict[str, Any]:
    return {
        "input": record.input,
        "references": list(record.references),
        "prediction": prediction,
        "nll": record.nll if math.isfinite(record.nll) else None,
        "tokens": record.tokens,
        "prompt": record.prompt,
    }


def _calibration(sure: Sequence[Any] | None) -> dict[str, Any] | None:
    if not sure:
        return None
    return asdict(calibration([one.confidence for one in sure], [one.correct for one in sure]))


def _tfidf(recipe: Recipe, train: Sequence[Any], rows: Sequence[Any]) -> dict[str, Any]:
    """Words alone. It knows no likelihoods, so that metrics that need them are left out."""
    if recipe.task.kind != "classification":
        raise SoftPromptError(
            f"tf-idf cannot do a {recipe.task.kind} task", "it tells labels apart", "leave it out"
        )
    started, template = time.perf_counter(), template_of(recipe)
    known, asked = ([_Bare(template.render(row)) for row in part] for part in (train, rows))
    guesses = tfidf_baseline(known, asked).records
    names = list(recipe.task.metrics or default_metrics(recipe.task.kind))
    names = [name for name in names if METRICS[name].needs == "prediction"]
    found = compute(names, [g.prediction for g in guesses], [g.references for g in guesses])
    labels = list(recipe.task.labels or ())
    prompts = _prompts(recipe, train)
    told = [
        {
            "input": guess.input,
            "references": list(guess.references),
            "prediction": guess.prediction,
            "nll": None,
            "tokens": 0,
            "prompt": 0 if (own := meant(one.rendered.prompt or "", prompts)) is None else prompts.index(own),
            "label": labels.index(guess.prediction) if guess.prediction in labels else None,
            "target": labels.index(one.rendered.target) if one.rendered.target in labels else None,
            "confidence": None,
        }
        for guess, one in zip(guesses, asked, strict=True)
    ]
    return {
        "status": "done",
        "error": None,
        "dev_key": [found[names[0]].value] if names else [],
        "metrics": {name: asdict(value) for name, value in found.items()},
        "calibration": None,
        "examples": told,
        "seconds": time.perf_counter() - started,
    }


class _Bare:
    """A rendered row where an encoded one is asked for: words need no token ids."""

    target_ids: tuple[int, ...] = ()
    truncated = 0

    def __init__(self, rendered: Any) -> None:
        self.rendered = rendered


def _rows(folder: Folder, split: str) -> list[Any]:
    return read_rows(Path(folder.rows(split)), split=split)


def _prompts(recipe: Recipe, train: Sequence[Any]) -> tuple[str, ...]:
    field = recipe.data.prompt_field
    if field is None:
        return ("default",)
    return tuple(distinct(str(row[field]) for row in train if row.get(field) not in (None, "")))


def _encoder(recipe: Recipe, lm: LanguageModel, artifact: Artifact) -> Encoder:
    return encoder_of(recipe, lm, template_of(recipe, lm), artifact.prompts, artifact.manifest["labels"])
