"""The options and the printed report of `softprompt distill` with several texts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SoftPromptError
from .distilled import samples_text, ways_table
from .interruption import resumable
from .output import Reply, table

if TYPE_CHECKING:
    from ..config.schema import Recipe
    from ..distillation.several import Several
    from ..training.tune import Hooks

TOGETHER = "--together"


def texts_given(system: Sequence[Path], document: Sequence[Path]) -> dict[str, Any] | None:
    """Return several texts as `teacher.texts` of a recipe has them; None where one text or none is given."""
    from ..distillation.texts import are_several, texts_of

    sources = [*system, *document]
    return texts_of(sources) if are_several(sources) else None


def check_alone(*, together: bool, apart: bool) -> None:
    """Raise SoftPromptError for an option of several texts that is given with one."""
    for option, given in ((TOGETHER, together), ("--apart", apart)):
        if given:
            raise SoftPromptError(
                f"{option} is given with one text",
                why="it says how the prompts of several texts are trained",
                fix="--document a.md --document b.md, or a folder or a table of texts",
            )


def distill_texts(recipe: Recipe, requests: str | None, *, json: bool, **options: Any) -> Reply:
    """Turn the texts of the recipe into vectors, and return the report."""
    from ..distillation.several import distil_several

    def work(hooks: Hooks) -> Reply:
        result = distil_several(recipe, requests, hooks=hooks, **options)
        return Reply(result.report(), None if json else report_text(result))

    return resumable(Path(recipe.output), work)


def report_text(result: Several) -> str:
    """Return the report as the command prints it."""
    rows: list[tuple[str, ...]] = [("text", "share kept", "95 % interval")]
    rows += [(name, *_percent(share)) for name, share in result.shares.items()]
    first = result.at_once[1][0]
    more: list[tuple[str, ...]] = [("attached at once", "share kept", "95 % interval", "of one alone")]
    for k, share in result.at_once.items():
        more.append((str(k), *_percent(share), f"{share[0] / first:.2f}" if first > 0 else "n/a"))
    paths = [str(run.artifact.path) for run in result.runs]
    names = list(result.shares)
    quoted = [shlex.quote(path) for path in paths]
    prompts = [shlex.quote(f"{paths[0]}:{name}") for name in names] if len(paths) == 1 else quoted
    first_prompt = f"{quoted[0]} --prompt {shlex.quote(names[0])}" if len(paths) == 1 else quoted[0]
    both = shlex.quote(str(Path(result.runs[0].prepared.recipe.output).with_name("both")))
    n = len(result.attached.examples)
    return "\n".join(
        [
            f"what the prompts keep of the texts' effect, on {n} requests that were kept apart:",
            table(rows, right=range(1, 3)),
            "",
            table(more, right=range(1, 4)),
            "",
            ways_table("ahead of the request", result.figures.ways),
            *samples_text(result.figures.samples),
            "",
            "next:",
            f'  softprompt generate {first_prompt} "your request"',
            f"  softprompt report {shlex.quote(str(result.folder))} --open",
            f"  softprompt compose --concat {' '.join(prompts[:2])} --out {both}",
        ]
    )


def _percent(share: tuple[float, float, float]) -> tuple[str, str]:
    value, low, high = (100 * number for number in share)
    return f"{value:.0f} %", f"[{low:.0f}, {high:.0f}]"
