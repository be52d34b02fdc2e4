"""Drafts a first comparison of rows that have no recipe: inferred, measured, and cut to a time.

The recipe is written beside the results. Where it exists already, it is used as it is, so that it can be
edited, and what was run is not run again.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from .._system.files import write_text
from .._system.paths import expanded
from ..compare.candidates import fits
from ..config.load import load_recipe, recipe_from_dict
from ..config.schema import Recipe
from ..data.labels import distinct_labels
from ..data.sources import Row, read_rows
from ..data.split import limit_rows
from ..data.task import WRITTEN as TEXTS
from ..errors import SoftPromptError
from ..lm.from_recipe import load_base
from ..methods import option_names
from . import draft, time_budget, time_cuts
from .infer_fields import Guess, guess
from .rank import rank
from .requirements import Needs, Requirements
from .requirements import measure as measure_needs

METHODS = ("prompt-tuning/before", "prompt-tuning/after", "prefix-tuning/before", "prefix-tuning/after")
OTHERS = ("lora", "zero-shot", "few-shot")
FEWEST = 20  # rows: fewer cannot be split into three parts
LEARNED, TESTED, WRITTEN = 400, 200, 24  # rows at most; those written are answers in text
SHARE_DEV, SHARE_TEST = 0.2, 0.2
ENOUGH = 300  # rows, of which some may be held out as unlike the rest
LONGEST_INPUT, LONGEST_TARGET = 512, 128  # tokens that two cores can process
WITHIN = 1800.0  # seconds


@dataclass(frozen=True)
class Start:
    """The recipe that was written, or that existed, and what a user should know about it."""

    path: Path
    existed: bool
    within: float | None = None  # seconds that all calls together may take
    guess: Guess | None = None
    needs: Needs | None = None
    limits: tuple[str, ...] = ()
    cuts: tuple[str, ...] = ()  # what has less, to keep to the time
    seconds: float | None = None  # that it will take, about


def start(
    rows: str,
    overrides: Sequence[str],
    folder: Path | None,
    *,
    within: float | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Start:
    """Write the recipe into the comparison's folder (by default `runs/NAME-compare`), if it is not there.

    `overrides` are the user's: they win over what is inferred, and are written into the recipe. All else is
    cut until the comparison ends `within` seconds from now: by default `WITHIN`, and no limit for one that
    gives every method the same time (`compare.budget`).

    Raises SoftPromptError for rows that cannot be read or are too few, for fields that do not tell what is
    predicted, and for a time that is too short; nothing was run then.
    """
    began = time.monotonic()
    name, names = name_of(rows), option_names()
    plain: dict[str, Any] = {"data": {"train": rows}, "output": f"runs/{name}"}
    requested = recipe_from_dict(plain, overrides=overrides, method_option_names=names)
    place = Path(folder or requested.compare.output or f"runs/{name}-compare")
    path = place / f"{name}.yaml"
    if path.exists():
        _check_rows(path, rows)
        return Start(path, True, within)
    read = read_rows(requested.data.train)
    fields = _fields(read, requested)
    kind = requested.task.kind if "kind" in requested.task.model_fields_set else None
    loaded = requested
    if (of_task := kind or fields.kind) in draft.MODELS:  # the base is another, and is read in another way
        usual = {"model": draft.model_for(of_task)}
        inferred = {"task": {"kind": of_task}} if kind is None else {}
        loaded = recipe_from_dict(plain | usual | inferred, overrides=overrides, method_option_names=names)
    if len(read) < FEWEST:
        raise SoftPromptError(
            f"{len(read)} rows are too few to compare methods on",
            why="some are learned from, some choose the settings, and some must be new to all",
            fix=f"give {FEWEST} at the very least; a few hundred can show a difference",
        )
    say(f"{len(read)} rows; loading {loaded.model} …")
    template = draft.template_of(fields, kind)
    has_labels = loaded.task.needs_head and loaded.task.kind != "regression"
    lm = load_base(loaded, distinct_labels(read, template) if has_labels else None)
    required = Requirements(loaded.model.id)
    needs = measure_needs(read, template, lm, required, kind=kind)
    plain, limits = comparison(rows, name, place, loaded.to_dict()["model"], fields, needs)
    # what the user asks for may exclude more: int8 weights are not trained
    plain["compare"]["methods"] = [each for each in plain["compare"]["methods"] if fits(each, loaded)]
    _write_requested(plain, requested)
    recipe = recipe_from_dict(plain, place, method_option_names=names)
    say("timing a step of each kind of method …")
    count = workers or recipe.compare.workers or time_budget.processes(recipe)
    pace = time_budget.measure(recipe, lm, limit_rows(read, len(read), recipe.train.seed), count)
    levels = {key: values for key, values in time_cuts.LEVELS.items() if not _is_set(requested, key)}
    if needs.kind != "generation":
        levels.pop("compare.text_rows", None)
    if requested.compare.budget is not None:
        levels.pop("train.steps", None)  # they are planned

    def seconds_of(settings: dict[str, Any]) -> float:
        changed = recipe.with_settings(time_cuts.spelt(settings, recipe))
        return pace.seconds(changed, time_budget.Counts.of(len(read), changed))

    limit = within
    if within is None:
        limit = WITHIN if requested.compare.budget is None else math.inf
    assert limit is not None
    room = time_cuts.SPARE * (limit - (time.monotonic() - began))
    settings, seconds = time_cuts.fit(seconds_of, room, levels)
    if seconds > room:
        raise time_cuts.too_short("--within", limit, seconds, time.monotonic() - began)
    for key, value in time_cuts.spelt(settings, recipe).items():
        if not time_cuts.is_no_limit(key, value, len(read)):
            section, leaf = key.split(".")
            plain.setdefault(section, {})[leaf] = value
    if math.isfinite(limit):
        plain["compare"]["within"] = float(limit)
    recipe_from_dict(plain, place, method_option_names=names)  # checks it
    write_text(path, draft.text_of(plain, _head(path, seconds)))
    cuts = tuple(time_cuts.shown(settings, levels, recipe, len(read)))
    return Start(
        path, False, limit if math.isfinite(limit) else None, fields, needs, tuple(limits), cuts, seconds
    )


def _write_requested(plain: dict[str, Any], requested: Recipe) -> None:
    """Write the values of the command line into the plain recipe."""
    values = requested.to_dict()
    for section in requested.model_fields_set - {"model"}:  # which is in the recipe already
        model = getattr(requested, section)
        for leaf in model.model_fields_set if isinstance(model, BaseModel) else ():
            value = values.get(section, {}).get(leaf, getattr(model, leaf))
            if section == "data" and leaf in ("dev", "test") and value and not value.startswith("hf:"):
                value = os.path.abspath(Path(value).expanduser())
            if (section, leaf) not in (("data", "train"), ("compare", "output")):
                plain.setdefault(section, {})[leaf] = value


def name_of(rows: str) -> str:
    """Return the name that the recipe and the folder have, after the rows."""
    name = Path(rows.removeprefix("hf:").replace(":", "-")).stem
    return re.sub(r"[*?\[\]]+", "", name).strip("-_.") or "rows"


def _check_rows(path: Path, rows: str) -> None:
    known = load_recipe(path).data.train
    given = rows if rows.startswith("hf:") else os.path.abspath(expanded(rows))
    if known != given:
        raise SoftPromptError(
            f"{path} is there already, and learns from other rows",
            why=f"it names {known}",
            fix=f"name another folder: --output runs/{name_of(rows)}-2",
        )


def _fields(rows: Sequence[Row], requested: Recipe) -> Guess:
    given = requested.template.model_fields_set
    none = "" if "prompt_field" in requested.data.model_fields_set else None
    return guess(
        rows,
        input=requested.template.input if "input" in given else None,
        target=requested.template.target if "target" in given else None,
        choices=requested.task.choices,
        prompt_field=requested.data.prompt_field or none,
        kind=requested.task.kind if "kind" in requested.task.model_fields_set else None,
    )


def comparison(
    rows: str, name: str, place: Path, model: Any, fields: Guess, needs: Needs
) -> tuple[dict[str, Any], list[str]]:
    """Return the recipe as plain values, and what was limited for the time that it takes, in words."""
    limits, learned = [], needs.rows * (1 - SHARE_TEST)
    labels = needs.labels if needs.kind == "classification" else ()
    sections = draft.sections(rows, place, fields, needs.kind, labels, needs.pooling)
    recipe: dict[str, Any] = {"model": model, **sections}
    data, task = recipe["data"], recipe["task"]
    # paths in a recipe belong to its folder
    compare: dict[str, Any] = {"methods": _methods(needs), "test_limit": TESTED, "output": "."}
    data["dev_fraction"] = SHARE_DEV
    if learned > LEARNED:
        data["limit"] = LEARNED
        limits.append(f"{LEARNED} rows to learn from and to choose by, {TESTED} to test (data.limit)")
    room = min(LONGEST_INPUT, needs.context // 4)
    if needs.longest - needs.longest_target > room:
        data["max_input_tokens"] = room
        limits.append(f"inputs of more than {room} tokens lose their first ones (data.max_input_tokens)")
    if needs.kind in TEXTS:
        most = min(LONGEST_TARGET, needs.context // 8)
        task["max_new_tokens"] = min(most, max(16, needs.longest_target + 4))
        if needs.longest_target > most:
            data["max_target_tokens"] = most
            limits.append(f"targets of more than {most} tokens lose their last ones (data.max_target_tokens)")
    if needs.kind == "generation":
        compare["text_rows"] = WRITTEN
        limits.append(f"answers are written for {WRITTEN} test rows; perplexity is of all")
    if needs.rows >= ENOUGH:
        compare["unseen"] = "auto"
    batch = int(min(LEARNED, learned) * (1 - SHARE_DEV)) // 2
    recipe["train"] = {"batch_size": max(1, min(draft.batch_of(needs.kind), batch))}
    recipe["output"] = os.path.relpath(f"runs/{name}", place)
    recipe["compare"] = compare
    return recipe, limits


def _methods(needs: Needs) -> list[str]:
    """Return the usual methods that are not excluded; a long row excludes none, as it is shortened."""
    short = replace(needs, longest=min(needs.longest, needs.context // 4))
    out = {item.candidate.name for item in rank(short).excluded}
    words = ["tf-idf"] if needs.kind == "classification" else []
    return [name for name in (*METHODS, *OTHERS, *words) if name not in out]


def _is_set(requested: Recipe, key: str) -> bool:
    section, leaf = key.split(".")
    return leaf in getattr(requested, section).model_fields_set


def _head(path: Path, seconds: float) -> list[str]:
    return [
        "A first comparison. What the rows are for was inferred: template, task. Change what you like; type",
        f"  softprompt compare {shlex.quote(str(path))}",
        f"It was to take about {max(1, round(seconds / 60))} minutes, and may take no more than",
        "compare.within (seconds, of all calls together; null: no limit). Fewer steps, rates, seeds or",
        "methods, or a shorter compare.budget, take less. More rows (data.limit, compare.test_limit) and",
        "seeds show smaller differences.",
        "All keys are described in docs/compare.md. Trials of which nothing was changed are not run again.",
    ]
