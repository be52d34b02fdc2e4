"""A first comparison of rows that have no recipe yet: guessed, measured, and cut to what a machine can bear.

The recipe lies beside the results. Where it is there already it is what counts, so that it can be edited and
what was run is found again.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from .._system.files import write_text
from .._system.paths import expanded
from ..build import load_base
from ..config.load import load_recipe, recipe_from_dict
from ..config.schema import Recipe
from ..data.sources import Row, read_rows
from ..data.split import limit_rows
from ..data.template import Template
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..methods import option_names
from . import time_budget
from .infer_fields import Guess, guess
from .rank import rank
from .requirements import Needs, Requirements, kind_of
from .requirements import measure as measure_needs

METHODS = ("prompt-tuning/before", "prompt-tuning/after", "prefix-tuning/before", "prefix-tuning/after")
OTHERS = ("lora", "zero-shot", "few-shot")
FEWEST = 20  # rows: fewer cannot be parted in three
LEARNED, TESTED, WRITTEN = 400, 200, 24  # rows at most; those written are answers in text
SHARE_DEV, SHARE_TEST = 0.2, 0.2
ENOUGH = 300  # rows, of which some may be held out as unlike the rest
LONGEST_INPUT, LONGEST_TARGET = 512, 128  # tokens that two cores can bear
WITHIN = 1800.0  # seconds


@dataclass(frozen=True)
class Start:
    """The recipe that was written, or found, and what there is to say of it."""

    path: Path
    found: bool  # it was there before
    within: float | None = None  # seconds that it may take, all calls together
    guess: Guess | None = None
    needs: Needs | None = None
    limits: tuple[str, ...] = ()
    cuts: tuple[str, ...] = ()  # what was left out to keep to the time
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
    """Write the recipe into the comparison's folder (by itself `runs/NAME-compare`), if it is not there.

    `overrides` are the user's, which win over what is guessed, and stand in the recipe. What they leave open
    is cut until the comparison ends `within` seconds (by itself `WITHIN`) from now.

    Raises SoftPromptError for rows that cannot be read or guessed, or too few, and for a time that is too
    short, before anything is run.
    """
    began = time.monotonic()
    name = name_of(rows)
    draft = {"data": {"train": rows}, "output": f"runs/{name}"}
    asked = recipe_from_dict(draft, overrides=overrides, method_option_names=option_names())
    place = Path(folder or asked.compare.output or f"runs/{name}-compare")
    path = place / f"{name}.yaml"
    if path.exists():
        _check_rows(path, rows)
        return Start(path, True, within)
    found = read_rows(asked.data.train)
    guessed = _guess(found, asked)
    _check_count(found)
    say(f"{len(found)} rows; loading {asked.model} …")
    lm = load_base(asked)
    needs = _needs(found, asked, guessed, lm)
    plain, limits = comparison(rows, name, place, asked, guessed, needs)
    _write_said(plain, asked)
    read = recipe_from_dict(plain, place, method_option_names=option_names())
    say("timing a step of each kind of method …")
    count = workers or read.compare.workers or time_budget.processes(read)
    pace = time_budget.measure(read, lm, limit_rows(found, len(found), read.train.seed), count)
    levels = {key: values for key, values in time_budget.LEVELS.items() if not _is_said(asked, key)}
    if needs.kind != "generation":
        levels.pop("compare.text_rows", None)

    def seconds_of(settings: dict[str, Any]) -> float:
        written = read.with_settings(spelt(settings, read))
        return pace.seconds(written, time_budget.Counts.of(len(found), written))

    limit = WITHIN if within is None else within
    room = time_budget.SPARE * (limit - (time.monotonic() - began))
    settings, seconds = time_budget.fit(seconds_of, room, levels)
    if seconds > room:
        raise time_budget.too_short("--within", limit, seconds, time.monotonic() - began)
    chosen = spelt(settings, read)
    for key, value in chosen.items():
        if key in ("data.limit", "compare.test_limit") and value >= len(found):
            continue
        section, leaf = key.split(".")
        plain.setdefault(section, {})[leaf] = value
    plain["compare"]["within"] = float(limit)
    recipe_from_dict(plain, place, method_option_names=option_names())  # it is one
    write_text(path, _text(path, plain, seconds))
    cuts = tuple(_cuts(settings, levels, read, len(found)))
    return Start(path, False, limit, guessed, needs, tuple(limits), cuts, seconds)


def spelt(settings: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """A plan's settings as a recipe has them: rates in pairs, control with serving, methods by name."""
    found = dict(settings)
    if "compare.rates" in found and "base_rates" not in recipe.compare.model_fields_set:
        found["compare.base_rates"] = time_budget.BASE_RATES[time_budget.RATES.index(found["compare.rates"])]
    if "compare.control" in found and "serving" not in recipe.compare.model_fields_set:
        found["compare.serving"] = found["compare.control"]
    if "compare.methods" in found:
        out = time_budget.DISPENSABLE[: found["compare.methods"]]
        found["compare.methods"] = [name for name in recipe.compare.methods or () if name not in out]
    return found


def _cuts(
    settings: Mapping[str, Any], levels: Mapping[str, Sequence[Any]], recipe: Recipe, rows: int
) -> Iterator[str]:
    """What is less than in a comparison that may take as long as it likes, in words."""
    for key, value in settings.items():
        most = levels[key][0]
        if value == most or (key in ("data.limit", "compare.test_limit") and value >= rows):
            continue
        if key == "compare.methods":
            gone = [n for n in time_budget.DISPENSABLE[:value] if n in (recipe.compare.methods or ())]
            if gone:
                yield f"without {', '.join(gone)} (compare.methods)"
        elif key == "compare.control":
            yield "control and serving are not measured (compare.control, compare.serving)"
        elif isinstance(value, list):
            yield f"{len(value)} learning rates instead of {len(most)} ({key})"
        else:
            yield f"{key.split('.')[-1].replace('_', ' ')}: {value} instead of {most} ({key})"


def _write_said(plain: dict[str, Any], asked: Recipe) -> None:
    """What the command line says, into the recipe as it is written."""
    said = asked.to_dict()
    for section in asked.model_fields_set:
        value = getattr(asked, section)
        if not isinstance(value, BaseModel):
            continue
        for leaf in value.model_fields_set:
            kept = said.get(section, {}).get(leaf, getattr(value, leaf))
            if section == "data" and leaf in ("dev", "test") and kept and not kept.startswith("hf:"):
                kept = os.path.abspath(Path(kept).expanduser())
            if (section, leaf) not in (("data", "train"), ("compare", "output")):
                plain.setdefault(section, {})[leaf] = kept


def name_of(rows: str) -> str:
    """Of the recipe and the folder, after the rows."""
    name = Path(rows.removeprefix("hf:").replace(":", "-")).stem
    return re.sub(r"[*?\[\]]+", "", name).strip("-_.") or "rows"


def _check_rows(path: Path, rows: str) -> None:
    known = load_recipe(path).data.train
    asked = rows if rows.startswith("hf:") else os.path.abspath(expanded(rows))
    if known != asked:
        raise SoftPromptError(
            f"{path} is there already, and learns from other rows",
            why=f"it names {known}",
            fix=f"name another folder: --output runs/{name_of(rows)}-2",
        )


def _check_count(rows: Sequence[Row]) -> None:
    if len(rows) < FEWEST:
        raise SoftPromptError(
            f"{len(rows)} rows are too few to compare methods on",
            why="some are learned from, some choose the settings, and some must be new to all",
            fix=f"give {FEWEST} at the very least; a few hundred can show a difference",
        )


def _guess(rows: Sequence[Row], asked: Recipe) -> Guess:
    said = asked.template.model_fields_set
    none = "" if "prompt_field" in asked.data.model_fields_set else None
    return guess(
        rows,
        input=asked.template.input if "input" in said else None,
        target=asked.template.target if "target" in said else None,
        choices=asked.task.choices,
        prompt_field=asked.data.prompt_field or none,
    )


def _needs(rows: Sequence[Row], asked: Recipe, guessed: Guess, lm: LanguageModel) -> Needs:
    template = Template(
        guessed.input,
        guessed.target,
        prompt_field=guessed.prompt_field,
        choices_field=guessed.choices,
    )
    kind = asked.task.kind if "kind" in asked.task.model_fields_set else None
    if kind is None:
        kind = kind_of([template.render(row) for row in rows])
    return measure_needs(rows, template, lm, Requirements(asked.model), kind=kind)


def comparison(
    rows: str, name: str, place: Path, asked: Recipe, guessed: Guess, needs: Needs
) -> tuple[dict[str, Any], list[str]]:
    """The recipe as plain values, and what of the rows was left out for the time it takes."""
    limits = []
    source = rows if rows.startswith("hf:") else os.path.relpath(expanded(rows), place)
    data: dict[str, Any] = {"train": source}
    if needs.rows * (1 - SHARE_TEST) > LEARNED:
        data["limit"] = LEARNED
        limits.append(f"{LEARNED} rows to learn from and to choose by, {TESTED} to test (data.limit)")
    data["dev_fraction"] = SHARE_DEV
    if guessed.prompt_field is not None:
        data["prompt_field"] = guessed.prompt_field
    room = min(LONGEST_INPUT, needs.context // 4)
    if needs.longest - needs.longest_target > room:
        data["max_input_tokens"] = room
        limits.append(f"inputs of more than {room} tokens lose their first ones (data.max_input_tokens)")
    task: dict[str, Any] = {"kind": needs.kind}
    if needs.kind == "classification":
        task["labels"] = sorted(needs.labels)
    if guessed.choices is not None and needs.kind == "choice":
        task["choices"] = guessed.choices
    if needs.kind == "generation":
        most = min(LONGEST_TARGET, needs.context // 8)
        task["max_new_tokens"] = min(most, max(16, needs.longest_target + 4))
        if guessed.references is not None:
            task["references"] = guessed.references
        if needs.longest_target > most:
            data["max_target_tokens"] = most
            limits.append(f"targets of more than {most} tokens lose their last ones (data.max_target_tokens)")
    compare: dict[str, Any] = {"methods": _methods(needs), "test_limit": TESTED}
    if needs.kind == "generation":
        compare["text_rows"] = WRITTEN
        limits.append(f"answers are written for {WRITTEN} test rows; perplexity is of all")
    if needs.rows >= ENOUGH:
        compare["unseen"] = "auto"
    compare["output"] = "."  # as paths in a recipe are: where the recipe is
    learned = min(LEARNED, needs.rows * (1 - SHARE_TEST)) * (1 - SHARE_DEV)
    recipe = {
        "model": asked.model,
        "data": data,
        "template": {"input": guessed.input, "target": guessed.target},
        "task": task,
        "train": {"batch_size": max(1, min(16, int(learned) // 2))},
        "output": os.path.relpath(f"runs/{name}", place),
        "compare": compare,
    }
    return recipe, limits


def _methods(needs: Needs) -> list[str]:
    """The usual ones, without those that cannot be had here; a long row is shortened, and no reason."""
    short = replace(needs, longest=min(needs.longest, needs.context // 4))
    out = {item.candidate.name for item in rank(short).excluded}
    words = ["tf-idf"] if needs.kind == "classification" else []
    return [name for name in (*METHODS, *OTHERS, *words) if name not in out]


def _is_said(asked: Recipe, key: str) -> bool:
    section, leaf = key.split(".")
    return leaf in getattr(asked, section).model_fields_set


def _text(path: Path, recipe: dict[str, Any], seconds: float) -> str:
    command = f"softprompt compare {shlex.quote(str(path))}"
    head = [
        "A first comparison. What the rows are for was guessed: template, task. Change what you like; type",
        f"  {command}",
        f"It was to take about {max(1, round(seconds / 60))} minutes, and may take no more than",
        "compare.within (seconds, of all calls together; null: no limit). Fewer steps, rates, seeds or",
        "methods take less; more rows (data.limit, compare.test_limit) and seeds show smaller differences.",
        "What may stand here: docs/compare.md. Trials that nothing was changed of are not run again.",
    ]
    body = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)
    return "\n".join(f"# {line}" for line in head) + "\n\n" + body
