"""Several texts are distilled in one run: into one table of prompts, or apart, into one artifact each.

Each text has its own requests, answers and teacher. In a table, `train.together` lets rows see other prompts
beside their own, so that several can be attached at once (see `training.together`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import methods
from .._system.files import write_text
from ..artifacts.prompt_names import path_of
from ..config.schema import Recipe
from ..data.row import Row
from ..data.spelling import meant
from ..data.teacher_texts import teacher_texts, with_texts
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.from_recipe import load_base
from ..page.blocks import Table
from ..page.notebook import fragment
from ..training import together
from ..training.output_folder import check_room
from ..training.prepare import Prepared, prepare
from ..training.run import Hooks, Run
from ..training.teacher_encoder import TeacherEncoder
from ..training.tune import tune_many
from .answers import Answer, answers
from .effect import check_effect
from .recipe import LR, check_base, with_fitting_method, with_keep, with_one_trained
from .report_blocks import ways_table
from .requests import Requests, check_arguments, read_requests, rows_of
from .run import REPORT
from .self_study import self_study
from .several_figures import SeveralFigures, attached_of, several_figures
from .start import is_open, with_start
from .together import COUNTS as AT_ONCE
from .together import Attached, Share
from .work import COUNTS, PROMPTS, REQUESTS, SELF_STUDY, split_answers

NAME = "name"  # the field of a row that names its text


@dataclass(frozen=True, repr=False)
class Several:
    """The tuned prompts of several texts, and what is left of the texts' effect with them."""

    runs: tuple[Run, ...]  # one of a table, or one a text
    attached: Attached
    folder: Path  # of the teachers' answers and the report
    figures: SeveralFigures

    @property
    def shares(self) -> dict[str, Share]:
        """Return the share of its text's effect that each prompt keeps alone, with its 95 % interval."""
        return self.figures.texts

    @property
    def at_once(self) -> dict[int, Share]:
        """Return the share that is kept by how many prompts are attached."""
        return self.figures.at_once

    def __repr__(self) -> str:
        kept = ", ".join(f"{name} {100 * share[0]:.0f} %" for name, share in self.shares.items())
        return f"the prompts keep of their texts' effect: {kept}\nin {self._paths}"

    def _repr_html_(self) -> str:
        shares = [[name, f"{100 * share[0]:.0f} %"] for name, share in self.shares.items()]
        table = Table(
            "Share of each text's effect that its prompt keeps", ["text", "share kept"], shares, (1,)
        )
        ways = ways_table("Against the answers with the texts", self.figures.ways)
        return fragment("What the prompts keep of their texts' effect", [f"in {self._paths}"], [table, ways])

    @property
    def _paths(self) -> str:
        return ", ".join(str(run.artifact.path) for run in self.runs)

    def report(self) -> dict[str, Any]:
        """Return all figures, as `distill.json` holds them."""
        first, manifest = self.runs[0].prepared, self.runs[0].artifact.manifest
        names = self.attached.names if len(self.runs) > 1 else ["all texts"]
        return {
            "artifacts": [str(run.artifact.path) for run in self.runs],
            "model": manifest["base"]["name"],
            "method": manifest["method"],
            **{key: manifest[key] for key in ("command", "versions") if key in manifest},
            "vectors": first.recipe.method.options().get("length"),
            "together": first.recipe.train.together,
            "measured_requests": len(self.attached.examples),
            **self.figures.to_json(),
            "history": {name: run.outcome.history for name, run in zip(names, self.runs, strict=True)},
        }


def refuse_for_several(given: Mapping[str, Any]) -> None:
    """Raise SoftPromptError for options (by name) that are of one text, where they are given."""
    if names := [name for name, value in given.items() if value is not None]:
        raise SoftPromptError(
            f"{' and '.join(names)} cannot be given with several texts",
            why="it is an option of one text",
            fix="leave it out, or distil each text by a call of its own",
        )


def distil_several(
    recipe: Recipe,
    requests: Requests | None,
    *,
    apart: bool = False,
    field: str | None = None,
    count: int | None = None,
    lm: LanguageModel | None = None,
    hooks: Hooks | None = None,
    restart: bool = False,
    overwrite: bool = False,
    any_method: bool = False,
) -> Several:
    """Distil each of `teacher.texts` into a prompt, and measure the prompts alone and attached together.

    Requests that name a text (in the field `name`) are about it; without names, each text gets all of them.
    Without requests the model writes `count` for each text. With `any_method` a model that takes no prefix
    gets soft tokens instead. With `apart` each prompt is trained alone, and saved in a folder of its own in
    the recipe's output.
    Raises SoftPromptError for texts, requests or a method that cannot be used.
    """
    hooks, folder = hooks or Hooks(), Path(f"{recipe.output}-distill")
    check_arguments(requests, field=field, count=count)
    anew = {"restart": restart, "overwrite": overwrite}
    recipe = with_one_trained(with_keep(with_texts(recipe)))
    texts = _checked(recipe, apart)
    is_decided = not any_method and not is_open(recipe)  # else the model decides what the recipe is
    if is_decided:
        _check_room(recipe, texts, apart, **anew)
    given = None if requests is None else _by_name(requests, tuple(texts), field)
    if lm is None:
        hooks.stage(f"loading {recipe.model} …")
        lm = load_base(recipe)
    if any_method:
        recipe = with_fitting_method(recipe, lm)
    teachers = [TeacherEncoder(_alone(recipe, name, apart=True), lm, PROMPTS) for name in texts]
    recipe = with_start(recipe, lm, teachers)
    if not is_decided:
        _check_room(recipe, texts, apart, **anew)
    parts: dict[str, list[list[Answer]]] = {}
    for name, teacher in zip(texts, teachers, strict=True):
        alone, place = _alone(recipe, name, apart=True), folder / path_of(name)
        rows = None if given is None else given[name]
        if rows is None:
            hooks.stage(f"the model writes requests about '{name}'")
            rows = self_study(alone, lm, teacher, count or COUNTS[alone.teacher.role], place / SELF_STUDY)
        hooks.stage(f"the teacher answers the requests about '{name}'")
        written = answers(alone, lm, teacher, rows, place / REQUESTS)
        split = split_answers(alone, teacher, written, None)
        parts[name] = [[{**row, NAME: name} for row in part] for part in split]
    prepared = _prepared(recipe, lm, parts, apart)
    for run in prepared:
        check_effect(run)
    runs = tune_many(prepared, hooks=hooks, restart=restart, overwrite=overwrite, text_rows=0)
    for run in runs:
        if run.outcome.stopped == "nan":
            lr = run.prepared.recipe.train.lr or LR
            raise SoftPromptError(
                f"the loss was not finite at step {run.outcome.step + 1}",
                fix=f"train.lr={lr / 3:.1e} --overwrite",
            )
    if not all(run.was_finished for run in runs):
        (folder / REPORT).unlink(missing_ok=True)  # it is of the vectors that were there before
    hooks.stage("measuring on the requests that were kept apart")
    attached = attached_of(runs, tuple(texts), {name: part[2] for name, part in parts.items()})
    most = len(texts) if _joins(runs[0].prepared) else 1
    figures = several_figures(runs, attached, texts, [k for k in AT_ONCE if k <= most])
    result = Several(tuple(runs), attached, folder, figures)
    write_text(folder / REPORT, json.dumps(result.report(), indent=2, ensure_ascii=False) + "\n")
    return result


def _checked(recipe: Recipe, apart: bool) -> dict[str, str]:
    """Return the texts. Raises SoftPromptError for what can be known before a model is loaded."""
    check_base(recipe)
    texts = teacher_texts(recipe)
    if len(texts) < 2:
        raise SoftPromptError(
            f"there is only one text: {', '.join(texts)}" if texts else "no text was given",
            why="several are trained in one table, or apart",
            fix="give more, or a single file: --document FILE",
        )
    if apart and recipe.train.together:
        raise SoftPromptError(
            "together and apart were given",
            why="prompts that are trained apart never see each other",
            fix="leave one of them out",
        )
    methods.check_options(recipe.method.name, recipe.method.options())
    if recipe.train.together is not True and int(recipe.train.together) > len(texts):
        together.check_count(int(recipe.train.together), tuple(texts))
    return texts


def _check_room(recipe: Recipe, names: Iterable[str], apart: bool, *, restart: bool, overwrite: bool) -> None:
    """Raise SoftPromptError where an output folder holds the result of another recipe."""
    for alone in [_alone(recipe, name, apart=True) for name in names] if apart else [recipe]:
        check_room(alone, restart=restart, overwrite=overwrite)


def _alone(recipe: Recipe, name: str, *, apart: bool) -> Recipe:
    """Return the recipe of one text, saved in a folder of its own."""
    output = str(Path(recipe.output) / path_of(name)) if apart else recipe.output
    return recipe.for_text(name).model_copy(update={"output": output})


def _by_name(requests: Requests, names: Sequence[str], field: str | None) -> dict[str, list[dict[str, Any]]]:
    """Return the requests about each text."""
    rows = rows_of(requests)
    if not any(NAME in row for row in rows):
        return dict.fromkeys(names, read_requests(rows, field))
    about: dict[str, list[Row]] = {name: [] for name in names}
    for row in rows:
        name = meant(str(row.get(NAME)), names)
        if name is None:
            raise SoftPromptError(
                f"{row.where}: no text is called {row.get(NAME)!r}",
                why=f"the texts are: {', '.join(names)}",
                fix=f"name one of them in the field '{NAME}', or leave the field out of all rows",
            )
        about[name].append(row)
    return {name: read_requests(of_text, field, about=name) for name, of_text in about.items()}


def _prepared(
    recipe: Recipe, lm: LanguageModel, parts: Mapping[str, Sequence[Sequence[Answer]]], apart: bool
) -> list[Prepared]:
    if apart:
        return [
            prepare(_alone(recipe, name, apart=True), lm=lm, rows=part[0], dev_rows=part[1])
            for name, part in parts.items()
        ]
    train, dev = ([row for part in parts.values() for row in part[i]] for i in (0, 1))
    return [prepare(recipe, lm=lm, rows=train, dev_rows=dev)]


def _joins(run: Prepared) -> bool:
    """Return whether several of the prompts can be attached at once."""
    try:
        together.check_joins(run.method, run.recipe)
    except SoftPromptError:
        return False
    return True
