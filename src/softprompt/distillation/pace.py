"""The time that a distillation will take is estimated before it begins, from a few tokens and steps.

Nothing is kept of what is measured. Answers are counted as if each was as long as it may be, so that the
estimate is an upper bound where answers are short.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from .. import methods
from .._system.progress import duration
from ..build import EXAMPLES_TO_START_FROM
from ..cache.folders import cache_place
from ..config.schema import Recipe
from ..config.sections.model import MethodConfig
from ..config.sections.task import TeacherConfig
from ..data.example import Example
from ..lm.base import LanguageModel
from ..training import estimate
from ..training.general_text import AT_ONCE, left_to_write
from ..training.general_text import TOKENS as GENERAL_TOKENS
from ..training.keep import CHUNK
from ..training.prepare import prepare
from ..training.teacher_encoder import TeacherEncoder
from . import self_study
from .beginnings import BATCH_TOKENS, Beginnings
from .requests import SHARES
from .start import MATCHED
from .vectors import with_length
from .ways import soft_tokens

FEW, MORE = 2, 8  # tokens that are written to measure the pace
STAND_INS = 8  # rows that steps are timed on
WAYS = 5  # that are measured beside the vectors: text, its keys and values, cut text, summary, no text
ROWS = -(-GENERAL_TOKENS // CHUNK) + 1  # of one general text
UNRELATED_ROWS = 12  # of unrelated text, which are about as long as a request with its answer
ATTEMPTS = 1.5  # for one request that can be used


@dataclass(frozen=True)
class Expected:
    """The seconds that each part of a distillation will take, and the step that was measured for it."""

    parts: dict[str, float]
    step: estimate.Price  # of one set of vectors; its seconds have no general text
    step_seconds: float  # with general text
    sets: int  # of vectors: one for each seed, or for each number of vectors that is tried
    soft_tokens: int

    @property
    def seconds(self) -> float:
        """Return the seconds of all parts together."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {duration(value)}" for name, value in self.parts.items() if value)
        return (
            f"about {duration(self.seconds)} at most, on this machine, as busy as it is now: {listed}"
            if listed
            else "nothing is left to do"
        )


def expected(
    recipe: Recipe,
    lm: LanguageModel,
    teacher: TeacherEncoder,
    requests: Sequence[str],
    *,
    wanted: int,
    writes: int,
    answers: int,
    seeds: int = 1,
    lengths: Sequence[int] = (),
    limit: float | None = None,
) -> Expected:
    """Measure the pace, and return what `wanted` requests will take.

    `writes` of them are still to be written by the model, and `answers` to be answered; `requests` are those
    that are known, of which none may be. `lengths` are the numbers of vectors that are tried, in `limit`
    seconds at most; each is counted as if it was the largest.
    """
    if lengths:
        recipe = with_length(recipe, max(lengths))
    new, chunks = recipe.task.max_new_tokens, 1 if teacher.is_whole else len(teacher.chunks)
    rows = max(1, min(wanted, BATCH_TOKENS // (new + 48)))
    shown = list(requests) or [text for _, text in self_study.prompts(teacher, wanted, 0)[1]]
    examples = self_study.encoded(teacher, 0, [shown[i % len(shown)] for i in range(rows)])
    start, token = _pace(lm, examples)
    each = self_study.at_once(teacher, wanted)
    attempt = start + self_study.MOST_TOKENS * token * each / rows
    price, soft = _training(recipe, lm, shown, teacher)
    step, score = _with_general_text(recipe, price), price.evaluation_seconds / STAND_INS
    dev, test = (share * wanted for share in SHARES)
    sets = max(seeds, len(lengths))
    # the change on unrelated text is measured without vectors, and before and after the training of each set
    unrelated = (1 + 2 * sets) * UNRELATED_ROWS * score
    training = sets * (recipe.train.steps * step + price.evaluations * score * dev) + unrelated
    prompt = teacher.text_tokens / max(1, len(lm.text_ids(teacher.chunks[0])))
    read = start * chunks * (prompt if teacher.is_whole else 1)  # the text itself
    return Expected(
        {
            "requests": ATTEMPTS * attempt * writes / each,
            "answers": (read + token * new * -(-answers // rows)) if answers else 0.0,
            "the teacher's distributions": read + score * wanted,
            "general text": _general_texts(recipe, lm) * (GENERAL_TOKENS / AT_ONCE * token + ROWS * score),
            "the start": sets * _start(recipe, read, score, wanted - dev - test),
            "training": training if limit is None else min(training, limit),
            "measuring": token * soft  # the summary
            + (WAYS + seeds) * (read / 2 + score * test + token * new * max(1.0, test / rows)),
        },
        price,
        step,
        sets,
        soft,
    )


def _pace(lm: LanguageModel, examples: Sequence[Example]) -> tuple[float, float]:
    """Return the seconds until a batch's first token, and for each further token."""
    writer, seconds = Beginnings(lm), []
    for count in (1, FEW, MORE):  # the first warms up
        started = time.perf_counter()
        for _ in writer.texts(examples, count, min_new_tokens=count):
            pass
        seconds.append(time.perf_counter() - started)
    token = max(0.0, seconds[2] - seconds[1]) / (MORE - FEW)
    return max(0.0, seconds[1] - FEW * token), token


def _training(
    recipe: Recipe, lm: LanguageModel, requests: Sequence[str], teacher: TeacherEncoder
) -> tuple[estimate.Price, int]:
    """Return the price of training and the vectors' columns, on stand-ins of the rows that there will be.

    They learn texts instead of distributions, which takes as long. Their answers are as long as allowed: a
    small model ends few of its answers earlier.
    """
    options = recipe.method.options()
    if "init" in methods.find(recipe.method.name).options():
        options |= {"init": "random"}
    stand_in = recipe.model_copy(
        update={
            "task": recipe.task.model_copy(update={"objective": "targets"}),
            "teacher": TeacherConfig(),
            "train": recipe.train.model_copy(update={"keep": None}),
            "method": MethodConfig(name=recipe.method.name, **options),
        }
    )
    length = recipe.task.max_new_tokens
    ids = lm.text_ids(teacher.text)
    ids = [*ids, *ids * ((length + STAND_INS) // len(ids))]  # however short the text is
    texts = [lm.tokenizer.decode(ids[i:][:length]) for i in range(STAND_INS)]
    rows = [
        {"request": f"{requests[i % len(requests)]} {i}", "answer": text if text.strip() else "text"}
        for i, text in enumerate(texts)
    ]
    batch = max(recipe.train.batch_size, len(rows))
    prepared = prepare(stand_in, lm=lm, rows=(rows * batch)[:batch], dev_rows=rows)
    return estimate.measure(prepared, slower=False), soft_tokens(prepared)


def _with_general_text(recipe: Recipe, price: estimate.Price) -> float:
    """Return the seconds of a step and of its share of general text, as `train.keep` says."""
    return price.step_seconds / (1 - recipe.train.kept_share)


def _start(recipe: Recipe, read: float, score: float, rows: float) -> float:
    """Return the seconds of a matched start: it reads rows behind the text, and behind the vectors."""
    if recipe.method.options().get("init") != MATCHED:
        return 0.0
    return read + 2 * score * min(rows, EXAMPLES_TO_START_FROM)


def _general_texts(recipe: Recipe, lm: LanguageModel) -> int:
    """Return how many general texts the model has still to write for `train.keep`."""
    if not recipe.train.kept_share or recipe.train.keep_text is not None:
        return 0
    return left_to_write(lm, recipe.train.steps, cache_place(recipe))
