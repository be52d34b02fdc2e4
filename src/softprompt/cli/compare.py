"""`softprompt compare`: which method for these rows? A fair contest, and a report of what it showed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .contest import Contest
from .interruption import Interruption
from .opening import Overrides, RecipeFile, open_recipe
from .output import Json, Reply, duration, log

if TYPE_CHECKING:
    from ..compare.engine import Compared


def compare(
    recipe: RecipeFile,
    overrides: Overrides = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FOLDER", help="Where it is kept; by itself OUTPUT-compare."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes; by itself one for two cores.")
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html.")] = True,
    json: Json = False,
) -> Reply:
    """Compare methods on a recipe's rows, with a report.

    All get the same search, the same seeds, and tests between all pairs. The recipe's compare section says
    which methods, and how long; without one, the usual ones. What was run already is not run again, so the
    same command goes on after Ctrl-C or a crash.

    \b
    Example:
      softprompt compare recipe.yaml
      softprompt compare recipe.yaml steps=100 seeds=2 'methods=[prompt-tuning/after, lora]'
    """
    from ..compare.engine import Hooks
    from ..compare.engine import compare as run

    read = open_recipe(recipe, overrides)
    folder = Path(output or read.compare.output or f"{read.output}-compare")
    again = _command(recipe, overrides, output, workers)
    with Interruption(), Contest() as contest:
        hooks = Hooks(contest.stage, contest.plan, contest.record)
        try:
            done = run(read, folder, workers=workers, hooks=hooks, report=report, source=str(recipe))
        except KeyboardInterrupt:
            contest.stop()
            said = f"stopped; what ended is in {folder}. To go on, type the same again:\n  {again}"
            data = {"interrupted": True, "output": str(folder), "resume": again, "ran": contest.ran}
            return Reply(data, said, code=130)
    headline, sentences, artifact = _answer(done)
    data = {
        "folder": str(done.folder),
        "report": None if done.page is None else str(done.page),
        "answer": [headline, *sentences],
        "artifact": None if artifact is None else str(artifact),
        "trials": done.trials,
        "ran": done.ran,
        "failed": done.failed,
        "seconds": done.seconds,
    }
    if json:
        return Reply(data)
    log(f"{done.trials} trials, {done.ran} of them run now in {duration(done.seconds)}")
    return Reply(data, "\n".join(_text(done, headline, sentences, artifact)))


def _answer(done: Compared) -> tuple[str, list[str], Path | None]:
    """The answer in words, and a tuned prompt of the method that it names."""
    from ..report import read, summary, verdict

    found = read.comparison(done.folder)
    chosen = verdict.verdict(found)
    headline, sentences = summary.answer(found, chosen)
    finals = [
        done.folder / "trials" / trial.id
        for trial in found.trials
        if chosen and (trial.contestant, trial.phase, trial.status) == (chosen.chosen, "final", "done")
    ]
    return headline, sentences, finals[0] if finals else None


def _text(done: Compared, headline: str, sentences: Sequence[str], artifact: Path | None) -> list[str]:
    lines = [headline, *(f"  {sentence}" for sentence in sentences), ""]
    if done.failed:
        lines += [f"{done.failed} trials failed: the report says why", ""]
    if done.page is not None:
        lines += [str(done.page), ""]
    lines += ["next:", f"  softprompt report {shlex.quote(str(done.folder))} --open"]
    if artifact is not None:
        lines.append(f'  softprompt generate {shlex.quote(str(artifact))} "your input"')
    return lines


def _command(recipe: Path, overrides: Sequence[str] | None, output: str | None, workers: int | None) -> str:
    words = ["softprompt", "compare", str(recipe), *(overrides or [])]
    words += [] if output is None else ["--output", output]
    words += [] if workers is None else ["--workers", str(workers)]
    return shlex.join(words)
