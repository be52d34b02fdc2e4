"""Starts `softprompt compare` on rows alone: what was inferred, how long it takes, and how to change it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .output import duration, log, table
from .quantities import seconds as seconds_of

if TYPE_CHECKING:
    from ..config.schema import Recipe
    from ..recommend.quickstart import Start


def is_rows(path: Path) -> bool:
    """Return whether it is rows, not a recipe: by its ending, a hub's name, or a folder."""
    from ..data.sources import FORMATS

    return path.suffix.lower() in FORMATS or str(path).startswith("hf:") or path.is_dir()


def begin(
    rows: Path,
    overrides: Sequence[str],
    output: str | None,
    within: str | None,
    workers: int | None = None,
) -> tuple[Path, float | None]:
    """Return the recipe's file, and the seconds that it will take, about (None: it was there before)."""
    from ..recommend.quickstart import start

    limit = None if within is None else seconds_of(within, "--within")
    folder = None if output is None else Path(output)
    begun = start(str(rows), overrides, folder, within=limit, workers=workers, say=log)
    if begun.existed:
        log(f"continuing with {begun.path}, which an earlier call wrote; remove it to infer it anew")
        return begun.path, None
    log(_summary(begun, within))
    return begun.path, begun.seconds


def _summary(begun: Start, within: str | None) -> str:
    from ..recommend.time_cuts import less
    from .opening import open_recipe

    recipe = open_recipe(begun.path, ())
    is_limited = begun.within is not None
    assert begun.guess is not None and begun.needs is not None and begun.seconds is not None
    task, labels = begun.needs.kind, begun.needs.labels
    if labels:
        task += f" of {len(labels)} labels: {', '.join(labels[:6])}" + (", …" if len(labels) > 6 else "")
    lines = ["", "inferred from the rows:", table([("task", task), *begun.guess.lines()])]
    if begun.limits:
        lines += ["limited, since this is a first comparison:", *(f"  {limit}" for limit in begun.limits)]
    if begun.cuts:
        time = "half an hour" if within is None else f"--within {within}"
        lines += [f"less, to keep to {time}:", *(f"  {cut}" for cut in begun.cuts)]
    shorter = less(recipe)
    hints = [
        *([] if within or not is_limited else ["--within 10m"]),
        *([" ".join(shorter)] if shorter else []),
    ]
    lines += [
        f"it will take about {duration(begun.seconds)} on this machine: {_size(recipe)}",
        *([f"  less: {', or '.join(hints)}, and another --output"] if hints else []),
        f"the recipe, to be edited: {begun.path}",
        f"  after that: softprompt compare {shlex.quote(str(begun.path))}",
        "",
    ]
    return "\n".join(lines)


def _size(recipe: Recipe) -> str:
    from ..compare.candidates import candidates_of

    candidates = candidates_of(recipe)
    trained = [candidate for candidate in candidates if not candidate.is_reference]
    rates = max((len(candidate.rates) for candidate in trained), default=0)
    references = [candidate.name for candidate in candidates if candidate.is_reference]
    beside = f", beside {', '.join(references)}" if references else ""
    seeds, budget = _count(recipe.compare.seeds, "seed"), recipe.compare.budget
    length = f" of {_count(recipe.train.steps, 'step')}" if budget is None else f" in {duration(budget)}"
    return (
        f"{_count(len(trained), 'method')}, each with {_count(rates, 'learning rate')} and "
        f"{seeds}{length}{beside}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
