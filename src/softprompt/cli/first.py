"""How `softprompt compare` begins with rows alone: what was guessed, what it takes, and how to change it."""

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
    """Whether it is rows, not a recipe: by its ending, a hub's name, or a folder."""
    from ..data.sources import FORMATS

    return path.suffix.lower() in FORMATS or str(path).startswith("hf:") or path.is_dir()


def begin(
    rows: Path,
    overrides: Sequence[str],
    output: str | None,
    within: str | None,
    workers: int | None = None,
) -> tuple[Path, float | None]:
    """The recipe's file, and the seconds that it will take, about (None: it was there before)."""
    from ..recommend.quickstart import start

    limit = None if within is None else seconds_of(within, "--within")
    folder = None if output is None else Path(output)
    made = start(str(rows), overrides, folder, within=limit, workers=workers, say=log)
    if made.found:
        log(f"going on with {made.path}, which an earlier call wrote; take it away to guess anew")
        return made.path, None
    log(_told(made, within))
    return made.path, made.seconds


def _told(made: Start, within: str | None) -> str:
    from ..recommend.time_budget import less
    from .opening import open_recipe

    read = open_recipe(made.path, ())
    assert made.guess is not None and made.needs is not None and made.seconds is not None
    needs = made.needs
    what = needs.kind
    if needs.labels:
        shown = ", ".join(needs.labels[:6]) + (", …" if len(needs.labels) > 6 else "")
        what += f" of {len(needs.labels)} labels: {shown}"
    lines = ["", "guessed:", table([("task", what), *made.guess.lines()])]
    if made.limits:
        lines += ["limited, since this is a first comparison:", *(f"  {limit}" for limit in made.limits)]
    if made.cuts:
        kept = "half an hour" if within is None else f"--within {within}"
        lines += [f"less, to keep to {kept}:", *(f"  {cut}" for cut in made.cuts)]
    hints = [*([] if within else ["--within 10m"]), *([" ".join(less(read))] if less(read) else [])]
    lines += [
        f"it will take about {duration(made.seconds)} on this machine: {_sum(read)}",
        *([f"  less: {', or '.join(hints)}, and another --output"] if hints else []),
        f"the recipe, to be edited: {made.path}",
        f"  after that: softprompt compare {shlex.quote(str(made.path))}",
        "",
    ]
    return "\n".join(lines)


def _sum(read: Recipe) -> str:
    from ..compare.candidates import contestants

    who = contestants(read)
    trained = [one for one in who if not one.is_reference]
    rates = max((len(one.rates) for one in trained), default=0)
    references = [one.name for one in who if one.is_reference]
    beside = f", beside {', '.join(references)}" if references else ""
    return (
        f"{_count(len(trained), 'method')}, each with {_count(rates, 'learning rate')} and "
        f"{_count(read.compare.seeds, 'seed')} of {_count(read.train.steps, 'step')}{beside}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
