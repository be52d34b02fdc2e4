"""A text is distilled: the teacher answers requests, vectors learn from that, and the loss is measured."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import methods
from .._system.files import write_text
from .._system.progress import follower
from ..artifacts.artifact import MANIFEST
from ..build import with_texts
from ..config.schema import Recipe
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.from_recipe import load_base
from ..training.leakage import leakage_of
from ..training.output_folder import check_room
from ..training.run import Hooks, Run
from ..training.teacher_encoder import TeacherEncoder
from ..tuned import Tuned
from . import pace, vectors
from .answers import Answer, answers, known_answers, usable, with_chunks
from .effect import check_effect
from .elapsed import Elapsed
from .measure import Figures, measure
from .parts import part_of
from .recipe import check_base, with_fitting_method, with_keep
from .requests import (
    LEAST,
    LEAST_MEASURED,
    Request,
    check_arguments,
    read_requests,
    split,
    without_measured,
)
from .seeds import as_kept, number_of_seeds, train_seeds
from .self_study import left_to_write, self_study
from .start import is_open, with_start

REQUESTS = "requests.jsonl"
SELF_STUDY = "self_study.jsonl"
REPORT = "distill.json"
COUNTS = {"system": 96, "document": 256}  # requests that the model writes where none are given
PROMPTS = ("default",)

Requests = str | Iterable[Mapping[str, Any] | str]


@dataclass(frozen=True, repr=False)
class Distilled:
    """The tuned vectors, and what is left of the text's effect with them."""

    run: Run  # of the seed whose vectors are kept
    comparison: Figures
    folder: Path  # of the teacher's answers and the report
    runs: tuple[Run, ...] = ()  # of all seeds, the kept one first
    curve: tuple[vectors.Point, ...] = ()  # the share by the number of vectors, where that was left open

    @property
    def tuned(self) -> Tuned:
        """Return the prompt on its base model."""
        prepared = self.run.prepared
        return Tuned(prepared.lm, self.run.artifact, prepared.method, prepared.encoder, prepared.recipe)

    @property
    def share(self) -> tuple[float, float, float]:
        """Return the share of the text's effect that the vectors keep, and its 95 % interval."""
        return self.comparison.share

    def __repr__(self) -> str:
        figures = self.comparison
        tokens = f"{figures.text_tokens} tokens a request become {figures.soft_tokens} vectors"
        return f"{figures.headline}\n{tokens}, in {self.run.artifact.path}"

    def report(self) -> dict[str, Any]:
        """Return all figures, as `distill.json` holds them."""
        manifest = self.run.artifact.manifest
        return {
            "artifact": str(self.run.artifact.path),
            "model": manifest["base"]["name"],
            "method": manifest["method"],
            **{key: manifest[key] for key in ("command", "versions") if key in manifest},
            "vectors": self.run.prepared.recipe.method.options().get("length"),
            **self.comparison.to_json(),
            **({"curve": [point.to_json() for point in self.curve]} if self.curve else {}),
        }


def distil(
    recipe: Recipe,
    requests: Requests | None,
    *,
    measured: Requests | None = None,
    field: str | None = None,
    count: int | None = None,
    lm: LanguageModel | None = None,
    hooks: Hooks | None = None,
    restart: bool = False,
    overwrite: bool = False,
    any_method: bool = False,
    seeds: int | None = None,
    price_hour: float | None = None,
    seconds: float | None = None,
) -> Distilled:
    """Distil the text of the recipe's teacher into vectors, and measure them on requests kept apart.

    `requests` are texts or rows, or the name of a file of rows; `field` names the field that holds a request.
    Without them the model writes `count` itself, kept in `OUTPUT-distill/self_study.jsonl`. Those of
    `measured` are only measured on; without them some of the requests are kept apart. The teacher's answers
    are kept in `OUTPUT-distill/requests.jsonl`, and used again by the next call. With `any_method` a model
    that takes no prefix gets soft tokens instead. `seeds` sets of vectors are trained, and the best on the
    dev rows is kept; a `length` of auto tries several within `seconds`. `price_hour` is what an hour of this
    machine costs: the report then has prices too.
    Raises SoftPromptError for a text or requests that cannot be used, and for a text that changes nothing.
    """
    hooks, folder = hooks or Hooks(), Path(f"{recipe.output}-distill")
    check_arguments(requests, measured, field=field, count=count)
    auto = vectors.is_auto(recipe)
    vectors.check_time(seconds, auto=auto, seeds=seeds)
    seeds = number_of_seeds(recipe, 1 if auto else seeds)
    anew = {"restart": restart, "overwrite": overwrite}
    recipe = _checked(recipe)
    is_decided = not any_method and not is_open(recipe)  # else the model decides what the recipe is
    if is_decided:
        _check_room(recipe, **anew)
    rows = None if requests is None else read_requests(requests, field)
    apart = None if measured is None else read_requests(measured, field, LEAST_MEASURED)
    started = time.perf_counter()
    if lm is None:
        hooks.stage(f"loading {recipe.model} …")
        lm = load_base(recipe)
    if any_method:
        recipe = with_fitting_method(recipe, lm)
    teacher = TeacherEncoder(recipe, lm, PROMPTS)
    recipe = with_start(recipe, lm, [teacher])
    if not is_decided:
        _check_room(recipe, **anew)
    with Elapsed(folder, recipe, since=started, **anew) as elapsed:
        work = _Work(recipe, lm, teacher, folder, rows, apart, count)
        lengths = vectors.lengths_for(teacher.text_tokens) if auto else []
        if follower() is not None and (restart or overwrite or not (Path(recipe.output) / MANIFEST).exists()):
            hooks.stage("measuring how long it will take …")
            hooks.stage(f"it takes {work.expected(seeds=seeds, lengths=lengths, limit=seconds)}")
        written, (train, dev, test) = work.answered(hooks)
        options: dict[str, Any] = {"lm": lm, "rows": train, "dev_rows": dev, "check": check_effect}
        options |= {"hooks": hooks, **anew}
        if auto:
            runs, curve = vectors.train_candidates(recipe, lengths, seconds=seconds, **options)
        else:
            runs, curve = train_seeds(recipe, seeds, **options), []
        was_finished = all(run.was_finished for run in runs)  # then this call has trained nothing
        took = elapsed.stop(count=not was_finished)
    if was_finished:
        took = seconds_before(folder / REPORT) or took or sum(run.outcome.seconds for run in runs)
    else:
        (folder / REPORT).unlink(missing_ok=True)  # it is of the vectors that were there before
    hooks.stage("measuring on the requests that were kept apart")
    comparison = measure(
        runs,
        test,
        folder,
        seconds=took,
        answered=(sum(bool(row["complete"]) for row in written), len(written)),
        leakage=leakage_of(runs[0]),
        price_hour=price_hour,
    )
    result = Distilled(runs[0], comparison, folder, tuple(runs), tuple(curve))
    write_text(folder / REPORT, json.dumps(result.report(), indent=2, ensure_ascii=False) + "\n")
    return result


@dataclass(frozen=True)
class _Work:
    """Does what comes before the training: the model writes requests, and its teacher answers them."""

    recipe: Recipe
    lm: LanguageModel
    teacher: TeacherEncoder
    folder: Path
    rows: Sequence[Request] | None  # None: the model writes them
    apart: Sequence[Request] | None  # that are only measured on
    count: int | None

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
        return written, _split(self.recipe, self.teacher, written, self.apart)

    def expected(self, **numbers: Any) -> pace.Expected:
        """Return what the work that is left will take."""
        rows, wanted = [*(self.rows or []), *(self.apart or [])], len(self.apart or ())
        wanted += self.number if self.rows is None else len(self.rows)
        given = with_chunks(self.teacher, rows)
        known = known_answers(self.recipe, self.lm, self.teacher, given, self.folder / REQUESTS)
        done = len(known) if self.rows is None else sum(row["request"] in known for row in given)
        writes = 0
        if self.rows is None:
            writes = left_to_write(self.teacher, self.number, self.folder / SELF_STUDY)
        numbers |= {"wanted": wanted, "writes": writes, "answers": max(0, wanted - done)}
        texts = [row["request"] for row in given]
        return pace.expected(self.recipe, self.lm, self.teacher, texts, **numbers)


def _checked(recipe: Recipe) -> Recipe:
    """Return the recipe with its text and the default of `train.keep`.

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
    return with_keep(with_texts(recipe))


def _check_room(recipe: Recipe, *, restart: bool, overwrite: bool) -> None:
    """Raise SoftPromptError where the output folder holds another result than one of this recipe's runs."""
    kept = vectors.as_kept(recipe) if vectors.is_auto(recipe) else as_kept(recipe)
    check_room(kept, restart=restart, overwrite=overwrite)


def _split(
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


def seconds_before(report: Path) -> float | None:
    """Return the seconds that an earlier report says; None without one."""
    if not report.exists():
        return None
    return json.loads(report.read_text(encoding="utf-8")).get("seconds")
