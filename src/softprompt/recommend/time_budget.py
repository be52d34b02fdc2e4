"""Estimates how long a comparison will take, from a few timings.

A step is timed once for each kind of method (those whose steps cost alike), and rows through the plain model;
the rest is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import methods
from .._system.progress import track
from ..compare.candidates import Candidate, candidates_of
from ..compare.running import equal_time
from ..compare.search import trials_of
from ..config.schema import Recipe
from ..data.sources import Row
from ..errors import SoftPromptError
from ..evaluation.evaluator import evaluator_of
from ..lm.base import LanguageModel
from ..lm.from_recipe import load_base
from ..methods.base import Setting
from ..training.prepare import Prepared, prepare
from ..training.step_timing import step_seconds, typical_batch
from ..training.tune import optimization

SAMPLE, SAMPLE_DEV, WRITTEN, TEXT_TOKENS = 48, 8, 4, 8  # rows and tokens that are measured on
BATCH = 8  # rows of a step that is timed
START = 8.0  # seconds until a worker has loaded its model
SERVED = 6 * (2 * 8 + 2)  # generated rows of 16 tokens of a serving measure, in its six rounds
EVALUATIONS = 5  # of the dev rows while training
LEAST = 5  # steps that the slowest method of a pilot takes
TIMED = 3  # steps that are timed of each trial, at equal time


@dataclass(frozen=True)
class Counts:
    """The expected number of rows of each split is given here."""

    train: int
    dev: int
    test: int  # unseen rows too

    @staticmethod
    def of(rows: int, recipe: Recipe) -> Counts:
        """Return the splits of so many rows."""
        compare, dev = recipe.compare, recipe.data.dev_fraction
        held = rows * compare.unseen.share if compare.unseen is not None else 0.0
        tested = (rows - held) * compare.test_fraction
        learned = min(recipe.data.limit or rows, rows - held - tested)
        most = compare.test_limit or rows
        test = min(most, tested) + min(most, held)
        return Counts(round(learned * (1 - dev)), round(learned * dev), round(test))


@dataclass(frozen=True)
class MeasuredSeconds:
    """The measured seconds are those of a method's step, of one row scored, and of one answered in text."""

    step: Mapping[str, float]
    row: float
    text: float = 0.0
    workers: int = 1
    start: float = START

    def seconds(self, recipe: Recipe, counts: Counts, *, search_only: bool = False) -> float:
        """Return the seconds of the whole comparison, or of its references and its search alone."""
        each = (self._of(item, recipe, counts, search_only) for item in candidates_of(recipe))
        return self.start + sum(each) / self.workers

    def equal_share(self, recipe: Recipe) -> float:
        """Return the training seconds of a search of `train.steps`, divided equally among the methods.

        It is enough for `LEAST` steps of the slowest method.
        """
        steps = {c.name: self._step(c) * trials_of(c, recipe.compare) for c in _trained(recipe)}
        if not steps:
            return 0.0
        return max(recipe.train.steps * sum(steps.values()) / len(steps), LEAST * max(steps.values()))

    def _step(self, candidate: Candidate) -> float:
        return self.step.get(candidate.name, max(self.step.values(), default=0.0))

    def _of(self, candidate: Candidate, recipe: Recipe, counts: Counts, search_only: bool) -> float:
        compare, row = recipe.compare, self.row
        texts = self.text * min(compare.text_rows or counts.test, counts.test)
        if candidate.is_reference:
            longer = 1 + (compare.shots if candidate.name == "few-shot" else 0)
            scored = 0.0 if search_only else row * counts.test + texts
            return 0.0 if candidate.name == "tf-idf" else longer * (row * counts.dev + texts + scored)
        step, budget = self._step(candidate), 0.0
        training = recipe.train.steps * step + EVALUATIONS * row * counts.dev
        cached = row * min(counts.train, recipe.train.steps * recipe.train.batch_size) + row * counts.dev
        if compare.budget is not None:  # of steps and caches; and a few steps are timed before
            budget = compare.budget + TIMED * (trials_of(candidate, compare) + 1) * step
            training, cached = equal_time.EVALUATIONS * row * counts.dev, row * counts.dev
        # trials of a search are trained side by side and read their inputs once
        search = budget + trials_of(candidate, compare) * training + cached
        if search_only:
            return search
        finals = compare.seeds * (1 + len(compare.curve)) * (training + cached + row * counts.dev)
        scores = compare.seeds * (row * counts.test + texts)
        measures = 12 * row * compare.control_rows if compare.control else 0.0
        measures += SERVED * max(row, self.text / 2) if compare.serving else 0.0
        return search + finals + scores + measures


def _trained(recipe: Recipe) -> list[Candidate]:
    return [candidate for candidate in candidates_of(recipe) if not candidate.is_reference]


def measure(recipe: Recipe, lm: LanguageModel, rows: Sequence[Row], workers: int = 1) -> MeasuredSeconds:
    """Time rows and steps of the recipe's methods on some of the rows.

    A method that cannot be timed is counted as the slowest of the others: its trials will report the error.
    Raises SoftPromptError for bad rows.
    """
    train, dev = list(rows[SAMPLE_DEV:][:SAMPLE]), list(rows[:SAMPLE_DEV])
    kinds: dict[tuple[bool, Any], list[Candidate]] = {}
    for item in candidates_of(recipe):
        if not item.is_reference:
            kind = item.trains_base, item.recipe.method.options().get("placement")
            kinds.setdefault(kind, []).append(item)
    step: dict[str, float] = {}
    failed: list[SoftPromptError] = []
    row = text = 0.0
    for alike in track(list(kinds.values()), "timing a step of each kind"):
        item = alike[0]
        base = load_base(item.recipe, item.recipe.task.labels) if item.trains_base else lm
        try:
            prepared = prepare(item.recipe, lm=base, rows=train, dev_rows=dev)
            step |= dict.fromkeys((other.name for other in alike), _step(prepared))
            if not row and not item.trains_base:
                row, text = _row(prepared)
        except SoftPromptError as error:
            failed.append(error)
    if failed and not step:
        raise failed[0]
    if not row:  # a pass forward is a third of a step
        row = max(step.values(), default=0.0) / recipe.train.batch_size / 3
    return MeasuredSeconds(step, row, text, workers)


def _step(prepared: Prepared) -> float:
    schedule = optimization(prepared.recipe)
    batch = typical_batch(prepared.train, schedule)
    few = batch[:BATCH]
    return step_seconds(prepared, few, repeats=1) * len(batch) / len(few)


def _row(prepared: Prepared) -> tuple[float, float]:
    """Time a dev row through the plain model: scored, and answered in text."""
    plain = methods.build("none", Setting(prepared.lm, prepared.prompts))
    evaluator = evaluator_of(prepared.recipe, prepared.lm, prepared.encoder)
    dev = prepared.dev
    scored = _seconds(lambda: evaluator.run(plain, dev, text_rows=0)) / len(dev)
    if prepared.encoder.kind != "generation":
        return scored, 0.0
    some, tokens = dev[:WRITTEN], min(TEXT_TOKENS, evaluator.max_new_tokens)
    few = _seconds(lambda: replace(evaluator, max_new_tokens=1).run(plain, some))
    more = _seconds(lambda: replace(evaluator, max_new_tokens=tokens).run(plain, some))
    each = max(0.0, more - few) / max(1, tokens - 1)
    return scored, (few + each * evaluator.max_new_tokens) / len(some)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def processes(recipe: Recipe) -> int:
    """Return the number of processes that a comparison runs its trials in by default."""
    from .._system.threads import right_number

    return max(1, right_number() // (recipe.train.threads or 2))
