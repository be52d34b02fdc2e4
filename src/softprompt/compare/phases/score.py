"""Scores a split under a tuned prompt or a reference: metrics, and the result of every row."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ... import methods
from ...artifacts import artifact as artifacts
from ...build import encoder_of, template_of
from ...cache import InputCache
from ...cache.folders import cache_place
from ...cache.open import open_inputs
from ...cache.planning import plan_inputs
from ...config.load import recipe_from_dict
from ...config.schema import Recipe
from ...data.encode import Encoder
from ...data.example import Example
from ...data.fewshot import few_shot, stop_options
from ...data.sources import read_rows
from ...data.spelling import distinct, meant
from ...errors import SoftPromptError
from ...evaluation.diagnostics.baselines import tfidf_baseline
from ...evaluation.evaluator import evaluator_of
from ...evaluation.metric_intervals import Score, compute
from ...evaluation.metrics import METRICS, default_metrics
from ...evaluation.records import Evaluation, dev_key
from ...evaluation.stats.calibration import calibration
from ...lm.base import LanguageModel
from ...methods.base import Setting, SoftPrompt
from ..measures.confidence import confidences
from ..records.store import Folder
from ..records.types import Result, RowResult
from ..trials import Trial
from .model_pool import base_of, kept


def opened(folder: Folder, final: str) -> tuple[LanguageModel, SoftPrompt, Encoder, Recipe]:
    """Load a final trial's prompt on its base, ready to be measured."""
    artifact = artifacts.load(folder.artifact(final))
    recipe = recipe_from_dict(artifact.manifest["recipe"])
    lm = base_of(artifact, recipe)
    encoder = encoder_of(recipe, lm, template_of(recipe, lm), artifact.prompts, artifact.manifest["labels"])
    return lm, artifact.method(lm), encoder, recipe


def score(trial: Trial, folder: Folder) -> Result:
    """Score a reference, or the prompt of a final trial, on a split."""
    return (score_reference if "reference" in trial.about else score_final)(trial, folder)


def score_final(trial: Trial, folder: Folder) -> Result:
    """Score a final trial on a split."""
    lm, method, encoder, recipe = opened(folder, trial.about["final"])
    started, text_rows = time.perf_counter(), trial.about["text_rows"]
    examples = encoder.encode_rows(_rows(folder, trial.about["split"]))
    cache = _kept_inputs(recipe, lm, method, examples)
    evaluation = evaluator_of(recipe, lm, encoder).run(method, examples, cache=cache, text_rows=text_rows)
    return scored(evaluation, examples, encoder, text_rows, started)


def _kept_inputs(
    recipe: Recipe, lm: LanguageModel, method: SoftPrompt, examples: Sequence[Example]
) -> InputCache | None:
    """Open the inputs that are kept on disk, where the next final finds them; memory would be of no use."""
    if recipe.train.cache != "disk":
        return None
    plan = plan_inputs(recipe, lm, method, examples, len(examples))
    form, place = recipe.train.cache_dtype, cache_place(recipe)
    (cache,), _ = open_inputs(plan, lm, [examples], reads=method.reads, form=form, place=place)
    return cache


def score_reference(trial: Trial, folder: Folder) -> Result:
    """Score the plain model, with or without demonstrations, or TF-IDF, on a split."""
    recipe, about, started = recipe_from_dict(trial.recipe), trial.about, time.perf_counter()
    train, rows = _rows(folder, about.get("train", "train")), _rows(folder, about["split"])
    # as in training, no texts are generated for the dev rows
    text_rows = about["text_rows"] if about["split"] != "dev" else 0
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
    return scored(evaluator.run(plain, examples, text_rows=text_rows), examples, encoder, text_rows, started)


def scored(
    evaluation: Evaluation,
    examples: Sequence[Example],
    encoder: Encoder,
    text_rows: int | None,
    started: float,
) -> Result:
    """Return an evaluation as a record holds it."""
    written = len(examples)
    if encoder.kind == "generation" and text_rows is not None:
        written = min(written, text_rows)
    has_scores = all(record.scores for record in evaluation.records)
    sure = confidences(evaluation.records) if has_scores else None
    rows: list[RowResult] = []
    for i, (record, example) in enumerate(zip(evaluation.records, examples, strict=True)):
        candidates = example.candidates or ()
        rows.append(
            {
                "input": record.input,
                "references": list(record.references),
                "prediction": record.prediction if i < written else None,
                "nll": _finite(record.nll),
                "tokens": record.tokens,
                "prompt": record.prompt,
                "label": None if sure is None else sure[i].label,
                "target": candidates.index(example.target_ids) if candidates else None,
                "confidence": None if sure is None else sure[i].confidence,
            }
        )
        if record.rewards is not None:
            rows[-1]["rewards"] = list(record.rewards)
        if record.ranks is not None:
            rows[-1]["ranks"], rows[-1]["query_rows"] = list(record.ranks), record.query_rows
    calibrated = None
    if sure:
        calibrated = asdict(calibration([row.confidence for row in sure], [row.correct for row in sure]))
    key = [_finite(x) for x in dev_key(evaluation).key]
    return _result(key, evaluation.metrics, calibrated, rows, started)


def _result(
    key: list[float | None],
    metrics: Mapping[str, Score],
    calibrated: dict[str, Any] | None,
    rows: list[RowResult],
    started: float,
) -> Result:
    return {
        "status": "done",
        "error": None,
        "dev_key": key,
        "metrics": {name: asdict(value) for name, value in metrics.items()},
        "calibration": calibrated,
        "examples": rows,
        "seconds": time.perf_counter() - started,
    }


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _tfidf(recipe: Recipe, train: Sequence[Any], rows: Sequence[Any]) -> Result:
    """Score logistic regression on words. It has no likelihoods, so metrics that need them are skipped."""
    if recipe.task.kind != "classification":
        raise SoftPromptError(
            f"tf-idf cannot do a {recipe.task.kind} task", "it classifies texts", "leave it out"
        )
    started, template = time.perf_counter(), template_of(recipe)
    known, unknown = ([_Bare(template.render(row)) for row in part] for part in (train, rows))
    guesses = tfidf_baseline(known, unknown).records
    names = list(recipe.task.metrics or default_metrics(recipe.task.kind))
    names = [name for name in names if METRICS[name].needs == "prediction"]
    metrics = compute(names, [g.prediction for g in guesses], [g.references for g in guesses])
    labels, prompts = list(recipe.task.labels or ()), _prompts(recipe, train)

    def number(label: str) -> int | None:
        return labels.index(label) if label in labels else None

    results: list[RowResult] = []
    for guess, row in zip(guesses, unknown, strict=True):
        prompt = meant(row.rendered.prompt or "", prompts)
        results.append(
            {
                "input": guess.input,
                "references": list(guess.references),
                "prediction": guess.prediction,
                "nll": None,
                "tokens": 0,
                "prompt": 0 if prompt is None else prompts.index(prompt),
                "label": number(guess.prediction),
                "target": number(row.rendered.target),
                "confidence": None,
            }
        )
    return _result([metrics[names[0]].value] if names else [], metrics, None, results, started)


class _Bare:
    """A rendered row in place of an encoded one: words need no token ids."""

    target_ids: tuple[int, ...] = ()
    truncated = 0

    def __init__(self, rendered: Any) -> None:
        self.rendered = rendered


def _rows(folder: Folder, split: str) -> list[Any]:
    return read_rows(folder.rows(split), split=split)


def _prompts(recipe: Recipe, train: Sequence[Any]) -> tuple[str, ...]:
    field = recipe.data.prompt_field
    if field is None:
        return ("default",)
    return tuple(distinct(str(row[field]) for row in train if row.get(field) not in (None, "")))
