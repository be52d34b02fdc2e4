"""`softprompt compare` compares methods on the user's rows and writes a report."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._system.progress import following
from .contest import Contest
from .first import begin, is_rows
from .interruption import Interruption
from .opening import Overrides, open_recipe
from .output import Json, Reply, duration, log, open_in_browser
from .quantities import seconds as seconds_of

if TYPE_CHECKING:
    from ..compare.experiment import Compared

Source = Annotated[
    Path, typer.Argument(metavar="ROWS|RECIPE", help="A file of rows, or a recipe.", show_default=False)
]


def compare(
    recipe: Source,
    overrides: Overrides = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FOLDER", help="Where results are kept; default: OUTPUT-compare."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes; default: one for two cores.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="10m", help="Training time of each method, the same for all."),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option("--within", metavar="30m", help="Time limit, all calls together."),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html.")] = True,
    open_page: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    json: Json = False,
) -> Reply:
    """Compare methods on your rows, with a report.

    A file of rows is enough: the task is inferred, shown, and written as a recipe that you can edit. All
    methods get the same search and the same seeds, and all pairs are tested. They take as many steps, or,
    with --budget, train for as many seconds. The recipe's compare section names the methods and the times.
    Finished trials are not run again, so the same command resumes after Ctrl-C or a crash.

    \b
    Example:
      softprompt compare rows.jsonl --open
      softprompt compare rows.csv --within 10m
      softprompt compare rows.jsonl --budget 5m
      softprompt compare recipe.yaml
      softprompt compare recipe.yaml steps=100 seeds=2 'methods=[prompt-tuning/after, lora]'
    """
    from ..artifacts.manifest import using_command
    from ..compare.experiment import Hooks
    from ..compare.experiment import compare as run

    began = time.monotonic()
    again = _command(recipe, overrides, output, workers, budget, within)
    estimate = None
    limit = [] if within is None else [f"compare.within={seconds_of(within, '--within')}"]
    given = list(overrides or ())
    given += [] if budget is None else [f"compare.budget={seconds_of(budget, '--budget')}"]
    if is_rows(recipe):
        recipe, estimate = begin(recipe, given, output, within, workers)
    read = open_recipe(recipe, [*given, *limit])
    folder = Path(output or read.compare.output or f"{read.output}-compare")
    # a comparison in this process would report each of its steps
    with Interruption(), following(None), Contest(estimate, read.compare.within) as contest:
        hooks = Hooks(contest.stage, contest.plan, contest.record)
        try:
            done = run(
                read, folder, workers=workers, hooks=hooks, report=report, source=str(recipe), since=began
            )
        except KeyboardInterrupt:
            contest.stop()
            text = f"stopped; finished trials are in {folder}. To resume, run the same command:\n  {again}"
            data = {"interrupted": True, "output": str(folder), "resume": again, "ran": contest.ran}
            return Reply(data, text, code=130)
    headline, sentences, limits, artifact, decision = _answer(done)
    data = {
        "recipe": str(recipe),
        "folder": str(done.folder),
        "report": None if done.page is None else str(done.page),
        "answer": [headline, *sentences],
        "notes": limits,
        "decision": decision,
        "artifact": None if artifact is None else str(artifact),
        "trials": done.trials,
        "ran": done.ran,
        "failed": done.failed,
        "seconds": done.seconds,
        "estimated_seconds": estimate,
        "budget_seconds": read.compare.budget,
        "within_seconds": read.compare.within,
        "left_out": list(done.left_out),
    }
    if open_page and done.page is not None:
        open_in_browser(done.page)
    if json:
        return Reply(data)
    log(f"{done.trials} trials, {done.ran} of them run now in {duration(done.seconds)}")
    used = None if artifact is None else f"{using_command(read.to_dict())} {shlex.quote(str(artifact))}"
    return Reply(data, "\n".join(_text(done, headline, sentences, limits, used)))


def _answer(
    done: Compared,
) -> tuple[str, list[str], list[str], Path | None, dict[str, Any] | None]:
    """Return the answer in words, its limits, a tuned prompt of the method named, and what decided."""
    from ..compare.report import answer, read, summary, verdict

    comparison = read.comparison(done.folder)
    chosen = verdict.verdict(comparison)
    headline, sentences = answer.answer(comparison, chosen)
    finals = [
        done.folder / "trials" / trial.id
        for trial in comparison.trials
        if chosen and (trial.contestant, trial.phase, trial.status) == (chosen.chosen, "final", "done")
    ]
    decision = None if chosen is None else {**asdict(chosen.decision), "tells": chosen.decision.tells}
    artifact = finals[0] if finals else None
    return headline, sentences, summary.notes(comparison, chosen), artifact, decision


def _text(
    done: Compared, headline: str, sentences: Sequence[str], limits: Sequence[str], used: str | None
) -> list[str]:
    lines = [
        headline,
        *(f"  {sentence}" for sentence in sentences),
        *(f"  - {limit}" for limit in limits),
        "",
    ]
    if done.failed:
        lines += [f"{done.failed} trials failed: the report says why", ""]
    if done.page is not None:
        lines += [str(done.page), ""]
    lines += ["next:", f"  softprompt report {shlex.quote(str(done.folder))} --open"]
    if used is not None:
        lines.append(f'  softprompt {used} "your input"')
    return lines


def _command(
    recipe: Path,
    overrides: Sequence[str] | None,
    output: str | None,
    workers: int | None,
    budget: str | None,
    within: str | None,
) -> str:
    words = ["softprompt", "compare", str(recipe), *(overrides or [])]
    words += [] if output is None else ["--output", output]
    words += [] if workers is None else ["--workers", str(workers)]
    words += [] if budget is None else ["--budget", budget]
    words += [] if within is None else ["--within", within]
    return shlex.join(words)
