"""A distillation is priced beforehand: a few rows are timed, and no teacher answers or scores the rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..config.schema import Recipe
from ..lm.base import LanguageModel
from ..training.estimate import measure
from ..training.prepare import prepare
from ..training.teacher_encoder import TeacherEncoder
from .beginnings import Beginnings
from .requests import Request
from .vectors import is_auto, lengths_for, with_length
from .ways import soft_tokens

PACED, TOKENS = 4, 8  # rows that are timed, and tokens that are written for each
WAYS = 5  # that one report answers with, beside the vectors of each seed
TEST = 0.15  # of the requests are measured on


@dataclass(frozen=True)
class DistillPrice:
    """Predicted seconds and bytes of a distillation, at most: every answer as long as allowed."""

    requests: int
    seeds: int
    trained: int  # sets of vectors: one for each seed, or for each number of vectors that is tried
    self_study_seconds: float  # 0 where requests are given
    answer_seconds: float
    teacher_seconds: float  # its distributions at the tokens of the answers
    step_seconds: float  # of one set of vectors
    training_seconds: float  # all sets, with dev evaluations
    measuring_seconds: float
    memory_bytes: int
    disk_bytes: int  # of the teacher's distributions
    text_tokens: int
    soft_tokens: int

    @property
    def seconds(self) -> float:
        """Return the seconds of all parts."""
        parts = (self.self_study_seconds, self.answer_seconds, self.teacher_seconds)
        return sum(parts) + self.training_seconds + self.measuring_seconds

    def to_json(self) -> dict[str, Any]:
        """Return all numbers, the total as `seconds`, and the tokens saved a request."""
        return asdict(self) | {"seconds": self.seconds, "saved_tokens": self.text_tokens - self.soft_tokens}


def price(
    recipe: Recipe, lm: LanguageModel, requests: Sequence[Request], number: int, seeds: int, *, writes: bool
) -> DistillPrice:
    """Predict the cost of distilling on `number` requests, of which `requests` are examples.

    `writes` says whether the model writes the requests itself. Nothing is written or kept.
    """
    teacher, most = TeacherEncoder(recipe, lm, ("default",)), recipe.task.max_new_tokens
    trained = seeds
    if is_auto(recipe):  # each is priced as if it was the largest
        lengths = lengths_for(teacher.text_tokens)
        recipe, trained = with_length(recipe, max(lengths)), len(lengths)
    rows = [requests[i % len(requests)] for i in range(2 * PACED)]
    examples = [teacher.encode(row) for row in rows[:PACED]]
    writer = Beginnings(lm)
    list(writer.texts(examples, 1))  # warms up
    reading = _timed(lambda: list(writer.texts(examples, 1))) / PACED
    whole = _timed(lambda: list(writer.texts(examples, TOKENS, min_new_tokens=TOKENS))) / PACED
    token = max(0.0, whole - reading) / (TOKENS - 1)
    answer = reading + token * most
    # rows with answers of half the length stand in for those that the teacher would write
    target = lm.tokenizer.decode((lm.text_ids(" the answer of the teacher") * most)[: max(1, most // 2)])
    task = recipe.task.model_copy(update={"objective": "targets"})
    plain = recipe.model_copy(update={"task": task, "teacher": type(recipe.teacher)()})
    stand_ins = [{**row, "request": f"{row['request']} {i}", "answer": target} for i, row in enumerate(rows)]
    prepared = prepare(plain, lm=lm, rows=stand_ins, dev_rows=stand_ins[:PACED])
    step = measure(prepared, slower=False)
    dev = step.evaluation_seconds / PACED * TEST * number
    tested = max(2, round(TEST * number))
    return DistillPrice(
        requests=number,
        seeds=seeds,
        trained=trained,
        self_study_seconds=number * answer if writes else 0.0,
        answer_seconds=number * answer,
        teacher_seconds=number * reading,
        step_seconds=step.step_seconds,
        training_seconds=trained * (step.steps * step.step_seconds + step.evaluations * dev),
        measuring_seconds=(WAYS + seeds) * tested * (answer + reading),
        memory_bytes=step.memory_bytes,
        disk_bytes=number * most * recipe.teacher.top_k * 8,
        text_tokens=teacher.text_tokens,
        soft_tokens=soft_tokens(prepared),
    )


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
