"""Ahead of the training, requests are read or written, and the teacher answers and splits them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import methods
from ..config.schema import Recipe
from ..data.teacher_texts import with_texts
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.from_recipe import load_base
from ..training.run import Hooks
from ..training.teacher_encoder import TeacherEncoder
from . import pace, vectors
from .answers import Answer, answers, known_answers, usable, with_chunks
from .parts import part_of
from .recipe import check_base, with_fitting_method, with_keep, with_one_trained
from .requests import (
    LEAST,
    LEAST_MEASURED,
    Request,
    Requests,
    check_arguments,
    read_requests,
    split,
    without_measured,
)
from .seeds import number_of_seeds
from .self_study import left_to_write, self_study
from .start import is_open, with_start

REQUESTS = "requests.jsonl"
SELF_STUDY = "self_study.jsonl"
COUNTS = {"system": 96, "document": 256}  # requests that the model writes where none are given
PROMPTS = ("default",)


@dataclass(frozen=True)
class Arguments:
    """A distillation is given these arguments beside its recipe.

    `requests` are texts or rows, or the name of a file of rows; `field` names the field that holds a request.
    Without them the model writes `count` itself, kept in `OUTPUT-distill/self_study.jsonl`. Those of
    `measured` are only measured on; without them some of the requests are kept apart. `lm` is the model where
    it is loaded already. With `any_method` a model that takes no prefix gets soft tokens instead. `seeds`
    sets of vectors are trained, and the best on the dev rows is kept; a `length` of auto tries several
    within `seconds`.
    """

    requests: Requests | None = None
    measured: Requests | None = None
    field: str | None = None
    count: int | None = None
    lm: LanguageModel | None = None
    any_method: bool = False
    seeds: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Work:
    """Does what comes before the training: the model writes requests, and its teacher answers them."""

    recipe: Recipe
    lm: LanguageModel
    teacher: TeacherEncoder
    rows: Sequence[Request] | None  # None: the model writes them
    apart: Sequence[Request] | None  # that are only measured on
    count: int | None
    seeds: int
    lengths: Sequence[int]  # the numbers of vectors that are tried; none where it is given
    seconds: float | None  # that all of them are trained for at most

    @property
    def folder(self) -> Path:
        """Return the folder of the requests and the answers."""
        return Path(f"{self.recipe.output}-distill")

    @property
    def wanted(self) -> int:
        """Return how many requests there will be, those that are only measured on too."""
        return len(self.apart or ()) + (self.number if self.rows is None else len(self.rows))

    @property
    def number(self) -> int:
        """Return how many requests the model writes where none are given."""
        return self.count or COUNTS.get(self.recipe.teacher.role, 96)

    def answered(self, hooks: Hooks) -> tuple[list[Answer], list[list[Answer]]]:
        """Return all answers of the teacher, and those to train on, to choose by, and to measure on."""
        rows = self.rows
        if rows is None:
            hooks.stage(f"the model writes {self.number} requests")
            rows = self_study(self.recipe, self.lm, self.teacher, self.number, self.folder / SELF_STUDY)
        rows = without_measured(rows, self.apart or [])
        hooks.stage("the teacher answers the requests")
        every = [*rows, *(self.apart or [])]
        written = answers(self.recipe, self.lm, self.teacher, every, self.folder / REQUESTS)
        return written, split_answers(self.recipe, self.teacher, written, self.apart)

    def expected(self) -> pace.Expected:
        """Measure the pace, and return what the work that is left will take. Nothing is written."""
        given = with_chunks(self.teacher, [*(self.rows or []), *(self.apart or [])])
        known = known_answers(self.recipe, self.lm, self.teacher, given, self.folder / REQUESTS)
        done = len(known) if self.rows is None else sum(row["request"] in known for row in given)
        writes = 0
        if self.rows is None:
            writes = left_to_write(self.teacher, self.number, self.folder / SELF_STUDY)
        return pace.expected(
            self.recipe,
            self.lm,
            self.teacher,
            [row["request"] for row in given],
            wanted=self.wanted,
            writes=writes,
            answers=max(0, self.wanted - done),
            seeds=self.seeds,
            lengths=self.lengths,
            limit=self.seconds,
        )


def begin(
    recipe: Recipe,
    given: Arguments,
    *,
    hooks: Hooks | None = None,
    check_room: Callable[[Recipe], None] = lambda recipe: None,
) -> Work:
    """Read the requests and load the model.

    `check_room` is called with the recipe as soon as it is decided, which takes the model where the method or
    the start is left open. Raises SoftPromptError for what cannot be used.
    """
    check_arguments(given.requests, given.measured, field=given.field, count=given.count)
    auto = vectors.is_auto(recipe)
    vectors.check_time(given.seconds, auto=auto, seeds=given.seeds)
    seeds = number_of_seeds(recipe, 1 if auto else given.seeds)
    recipe = _checked(recipe)
    is_decided = not given.any_method and not is_open(recipe)  # else the model decides what the recipe is
    if is_decided:
        check_room(recipe)
    rows = None if given.requests is None else read_requests(given.requests, given.field)
    apart = None if given.measured is None else read_requests(given.measured, given.field, LEAST_MEASURED)
    lm = given.lm
    if lm is None:
        (hooks or Hooks()).stage(f"loading {recipe.model} …")
        lm = load_base(recipe)
    if given.any_method:
        recipe = with_fitting_method(recipe, lm)
    teacher = TeacherEncoder(recipe, lm, PROMPTS)
    recipe = with_start(recipe, lm, [teacher])
    if not is_decided:
        check_room(recipe)
    lengths = vectors.lengths_for(teacher.text_tokens) if auto else []
    return Work(recipe, lm, teacher, rows, apart, given.count, seeds, lengths, given.seconds)


def _checked(recipe: Recipe) -> Recipe:
    """Return the recipe with its text, the default of `train.keep`, and a vector to train.

    Raises SoftPromptError for what can be known before a model is loaded and answers requests.
    """
    if recipe.task.objective != "distil":
        raise SoftPromptError(
            "the recipe does not distil a text",
            why=f"task.objective is {recipe.task.objective}",
            fix="task: {objective: distil} with teacher: {file: system.txt}; or softprompt tune",
        )
    check_base(recipe)
    of_kept = vectors.as_kept(recipe) if vectors.is_auto(recipe) else recipe
    methods.check_options(of_kept.method.name, of_kept.method.options())
    return with_one_trained(with_keep(with_texts(recipe)))


def split_answers(
    recipe: Recipe, teacher: TeacherEncoder, written: Sequence[Answer], apart: Sequence[Request] | None
) -> list[list[Answer]]:
    """Split the answers that can be used: to train on, to choose the best step by, to measure on."""
    whole = usable(written, recipe.task.max_new_tokens)
    known = {row["request"]: row for row in whole}
    if teacher.is_document:
        known = {request: {**row, "part": part_of(teacher, row)} for request, row in known.items()}
    kept_apart = {row["request"] for row in apart or ()}
    rows = [row for row in known.values() if row["request"] not in kept_apart]
    for name, usable_rows, least in (
        ("answers", rows, LEAST),
        ("answers to the requests that are measured on", [*known.keys() & kept_apart], LEAST_MEASURED),
    ):
        if len(usable_rows) < least and (name == "answers" or apart is not None):
            raise SoftPromptError(
                f"only {len(usable_rows)} of the teacher's {name} can be used: too few",
                why="the others are empty",
                fix="more requests",
            )
    parts = split(rows, recipe.train.seed, measured=apart is None)
    test = [known[row["request"]] for row in apart or () if row["request"] in known]
    return [*parts] if apart is None else [*parts, test]
