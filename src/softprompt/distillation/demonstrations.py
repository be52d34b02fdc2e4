"""Demonstrations are turned into vectors, as in CT-KV (arXiv 2507.04221); docs/distill.md is the page.

The prefix starts as the keys and values of the demonstrations and is trained on their own targets, and on
those of the requests. Requests without a target are answered by the model that has the demonstrations in
context: its answers are their targets.
"""

from __future__ import annotations

import copy
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import methods
from .._system.files import write_text
from .._system.notes import note
from ..build import encoder_of, template_of
from ..config.schema import Recipe
from ..data.encode import Encoder
from ..data.fewshot import few_shot, stop_options
from ..data.row import Row
from ..evaluation.evaluator import Evaluator, evaluator_of
from ..evaluation.metrics import METRICS
from ..evaluation.records import Evaluation
from ..lm.base import LanguageModel
from ..lm.from_recipe import load_base
from ..methods.base import Setting, SoftPrompt
from ..training.output_folder import check_room
from ..training.prepare import Prepared, prepare
from ..training.run import Hooks, Run
from ..training.tune import tune
from ..tuned import Tuned
from . import intervals
from .demonstration_rows import Rows, read, split
from .elapsed import Elapsed
from .first_token import seconds_to_first_token
from .run import seconds_before

PROMPTS = ("default",)
REPORT = "distill.json"
ANSWERS = "answered.jsonl"
NONE, IN_CONTEXT, UNTRAINED, TUNED = "no demonstrations", "in context", "untrained vectors", "tuned vectors"
SHOWN_WAYS = (IN_CONTEXT, TUNED, NONE)  # of the answers that are side by side
SHOWN = 3  # rows of them


@dataclass(frozen=True)
class TunedDemonstrations:
    """The tuned vectors, and how they answer beside the demonstrations that they started as."""

    run: Run
    ways: dict[str, Evaluation]  # by what comes ahead of a request, on the rows that were kept apart
    first_token: dict[str, float]  # median seconds
    shown: int  # demonstrations
    answered: tuple[int, int]  # requests without a target: complete answers, of all
    seconds: float
    folder: Path  # of the report and the answers

    @property
    def tuned(self) -> Tuned:
        """Return the prompt on its base model."""
        prepared = self.run.prepared
        return Tuned(prepared.lm, self.run.artifact, prepared.method, prepared.encoder, prepared.recipe)

    @property
    def largest_difference(self) -> float:
        """Return the largest difference (nats) of a target's loss: untrained vectors against the text."""
        pairs = zip(self.ways[IN_CONTEXT].records, self.ways[UNTRAINED].records, strict=True)
        return max(abs(a.nll - b.nll) for a, b in pairs)

    def report(self) -> dict[str, Any]:
        """Return all figures, as `distill.json` holds them."""
        options, manifest = self.run.prepared.recipe.method.options(), self.run.artifact.manifest
        records = {name: [way.records] for name, way in self.ways.items()}
        return {
            "artifact": str(self.run.artifact.path),
            "model": manifest["base"]["name"],
            "method": manifest["method"],
            **{key: manifest[key] for key in ("command", "versions") if key in manifest},
            "demonstrations": self.shown,
            "vectors": options["length"],
            "tokens_saved": options["length"],
            "leave_one_out": options.get("leave_one_out", False),
            "token_dropout": options.get("token_dropout", 0.0),
            "ways": {
                name: {**way.to_json(), "target_loss": statistics.mean(r.nll for r in way.records)}
                for name, way in self.ways.items()
            },
            "metric": self.metric,
            "higher_is_better": METRICS[self.metric].higher_is_better,
            "tests": intervals.tests(records, TUNED, [self.metric]),
            "history": self.run.outcome.history,
            "samples": self._samples(),
            "start_differs_by": self.largest_difference,
            "first_token": self.first_token,
            "answered": self.answered,
            "seconds": self.seconds,
        }

    @property
    def metric(self) -> str:
        """Return the name of the first metric, by which the best step was chosen."""
        return next(iter(self.ways[TUNED].metrics))

    def _samples(self) -> list[dict[str, str]]:
        """Return the first rows with the answers of each way side by side."""
        every = list(zip(*(self.ways[name].records for name in SHOWN_WAYS), strict=True))
        return [
            {
                "request": records[0].input,
                "right answer": " or ".join(records[0].references),
                **{name: record.prediction for name, record in zip(SHOWN_WAYS, records, strict=True)},
            }
            for records in every[:SHOWN]
        ]


def distil_demonstrations(
    recipe: Recipe,
    requests: str | Sequence[Mapping[str, Any]] | None,
    *,
    measured: str | Sequence[Mapping[str, Any]] | None = None,
    lm: LanguageModel | None = None,
    hooks: Hooks | None = None,
    restart: bool = False,
    overwrite: bool = False,
) -> TunedDemonstrations:
    """Tune a prefix that starts as the rows of `data.train`, and measure it on rows that were kept apart.

    Of the `requests` with a target, some are kept apart and the others join the training; `measured` names
    rows to measure on in their place. Without either, some of the demonstrations are kept apart.
    Raises SoftPromptError for rows that cannot be used.
    """
    hooks, folder = hooks or Hooks(), Path(f"{recipe.output}-distill")
    methods.check_options(recipe.method.name, recipe.method.options())
    check_room(recipe, restart=restart, overwrite=overwrite)
    rows = split(read(recipe, requests, measured), recipe.train.seed, template_of(recipe))
    with Elapsed(folder, recipe, restart=restart, overwrite=overwrite) as elapsed:
        if lm is None:
            hooks.stage(f"loading {recipe.model} …")
            lm = load_base(recipe)
        answered = (0, len(rows.unanswered))
        if rows.unanswered:
            hooks.stage("the model answers the requests without a target, with the demonstrations in context")
            written = _answers(recipe, lm, rows)
            write_text(
                folder / ANSWERS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written)
            )
            answered = (len(written), len(rows.unanswered))
            rows = replace(rows, train=[*rows.train, *written])
        prepared = _prepared(recipe, lm, rows)
        untrained = copy.deepcopy(prepared.method)
        run = tune(prepared, hooks=hooks, restart=restart, overwrite=overwrite, text_rows=0)
        if not run.was_finished:
            (folder / REPORT).unlink(missing_ok=True)  # it is of the vectors that were there before
        hooks.stage("measuring on the rows that were kept apart")
        shown = 1 + max(e.demonstration for e in prepared.train if e.demonstration is not None)
        ways, first_token = _measured(run.prepared, untrained, rows, shown)
        seconds = elapsed.stop(count=not run.was_finished)
    if run.was_finished:  # then this call has trained nothing
        seconds = seconds_before(folder / REPORT) or seconds or run.outcome.seconds
    result = TunedDemonstrations(run, ways, first_token, shown, answered, seconds, folder)
    write_text(folder / REPORT, json.dumps(result.report(), indent=2, ensure_ascii=False) + "\n")
    return result


def _prepared(recipe: Recipe, lm: LanguageModel, rows: Rows) -> Prepared:
    every = [*rows.shown, *rows.train]
    return prepare(recipe, lm=lm, rows=every, dev_rows=rows.dev, demonstrations_first=len(rows.shown))


def _measured(
    prepared: Prepared, untrained: SoftPrompt, rows: Rows, shown: int
) -> tuple[dict[str, Evaluation], dict[str, float]]:
    """Score every way to answer the rows that were kept apart, and time the first token of two of them."""
    recipe, lm, encoder = prepared.recipe, prepared.lm, prepared.encoder
    plain, whole = methods.build("none", Setting(lm, prepared.prompts)), encoder.begun()
    text = few_shot(whole, rows.shown, rows.test, shown, seed=recipe.train.seed)
    after = encoder.encode_rows(rows.test)
    ways = {
        NONE: (plain, whole.encode_rows(rows.test)),
        IN_CONTEXT: (plain, text),
        UNTRAINED: (untrained, after),
        TUNED: (prepared.method, after),
    }
    evaluator = _evaluator(recipe, lm, encoder)
    results = {name: evaluator.run(method, examples) for name, (method, examples) in ways.items()}
    timed = (IN_CONTEXT, TUNED)
    return results, {name: seconds_to_first_token(lm, *ways[name]) for name in timed}


def _evaluator(recipe: Recipe, lm: LanguageModel, encoder: Encoder) -> Evaluator:
    """Return the evaluator; an answer ends where the model would write another demonstration."""
    return replace(evaluator_of(recipe, lm, encoder), generate_options=stop_options(encoder))


def _answers(recipe: Recipe, lm: LanguageModel, rows: Rows) -> list[dict[str, Any]]:
    """Return the rows without a target, with the model's answers as targets; incomplete ones are left out."""
    encoder = encoder_of(recipe, lm, template_of(recipe, lm), PROMPTS).begun()
    encoder.encode_rows(rows.shown)  # which decide the labels
    shown = _prepared(recipe, lm, rows)
    count = 1 + max(e.demonstration for e in shown.train if e.demonstration is not None)
    (field,) = encoder.template.target_fields
    stand_in = rows.shown[0][field]  # a target that is not read: rows are encoded as few-shot ones are
    queries = [Row({**row, field: stand_in}, row.where) for row in rows.unanswered]
    examples = few_shot(encoder, rows.shown, queries, count, seed=recipe.train.seed)
    plain = methods.build("none", Setting(lm, PROMPTS))
    records = _evaluator(recipe, lm, encoder).run(plain, examples).records
    most = recipe.task.max_new_tokens if encoder.kind == "generation" else math.inf
    answered = [
        {**row, field: record.prediction}
        for row, record in zip(rows.unanswered, records, strict=True)
        if record.prediction.strip() and len(lm.text_ids(record.prediction)) < most - 1
    ]
    if left_out := len(records) - len(answered):
        note(f"{left_out} requests without a target are left out: their answer is empty, or does not end")
    return answered
