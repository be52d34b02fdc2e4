"""A distillation is priced beforehand: a few rows are timed, and no teacher answers or scores the rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..config.schema import Recipe
from .work import Arguments, begin


@dataclass(frozen=True)
class DistillPrice:
    """Predicted seconds and bytes of what is left to do, at most: every answer as long as allowed."""

    requests: int
    seeds: int
    trained: int  # sets of vectors: one for each seed, or for each number of vectors that is tried
    self_study_seconds: float  # 0 where requests are given
    answer_seconds: float
    teacher_seconds: float  # its distributions at the tokens of the answers
    general_text_seconds: float  # writing the text of `train.keep`, once for each base model
    start_seconds: float  # of all sets, where they start as a match of the text
    step_seconds: float  # of one set of vectors
    training_seconds: float  # all sets, with dev evaluations
    measuring_seconds: float
    memory_bytes: int
    disk_bytes: int  # of the teacher's distributions
    text_tokens: int
    soft_tokens: int
    price_hour: float | None = None  # what an hour of this machine costs, in the user's currency

    @property
    def seconds(self) -> float:
        """Return the seconds of all parts."""
        parts = (self.self_study_seconds, self.answer_seconds, self.teacher_seconds)
        parts += (self.general_text_seconds, self.start_seconds)
        return sum(parts) + self.training_seconds + self.measuring_seconds

    @property
    def price(self) -> float | None:
        """Return the price of all parts; None where an hour has no price."""
        return None if self.price_hour is None else self.seconds / 3600 * self.price_hour

    def to_json(self) -> dict[str, Any]:
        """Return all numbers, the total as `seconds` and as `price`, and the tokens saved a request."""
        totals = {"seconds": self.seconds, "price": self.price}
        return asdict(self) | totals | {"saved_tokens": self.text_tokens - self.soft_tokens}


def price(recipe: Recipe, given: Arguments, price_hour: float | None = None) -> DistillPrice:
    """Predict the cost of a distillation from a few rows.

    Answers that are there are not counted. Nothing is written or kept.
    """
    work = begin(recipe, given)
    expected = work.expected()
    parts, task = expected.parts, work.recipe.task
    return DistillPrice(
        requests=work.wanted,
        seeds=work.seeds,
        trained=expected.sets,
        self_study_seconds=parts["requests"],
        answer_seconds=parts["answers"],
        teacher_seconds=parts["the teacher's distributions"],
        general_text_seconds=parts["general text"],
        start_seconds=parts["the start"],
        step_seconds=expected.step_seconds,
        training_seconds=parts["training"],
        measuring_seconds=parts["measuring"],
        memory_bytes=expected.step.memory_bytes,
        disk_bytes=work.wanted * task.max_new_tokens * work.recipe.teacher.top_k * 8,
        text_tokens=work.teacher.text_tokens,
        soft_tokens=expected.soft_tokens,
        price_hour=price_hour,
    )
