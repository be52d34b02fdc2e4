"""`softprompt tune` trains a recipe's prompt, compares it with the plain model, and saves it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._system.progress import say
from .interruption import Interruption
from .opening import Overrides, RecipeFile, open_recipe
from .output import Json, Reply, duration, log, scores, size, table
from .side_by_side import run_together

if TYPE_CHECKING:
    from ..config.schema import Recipe
    from ..training.prepare import Prepared
    from ..training.tune import Run


def tune(
    recipe: RecipeFile,
    overrides: Overrides = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Drop an unfinished run instead of resuming it.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the tuned prompt that the output folder holds.")
    ] = False,
    json: Json = False,
) -> Reply:
    """Train a prompt or prefix and save it.

    The state that is best on the dev rows is kept, and compared with the plain model. Ctrl-C saves; the same
    command resumes where it stopped, also after a crash. For a finished run it shows the result.

    \b
    Example:
      softprompt tune recipe.yaml
      softprompt tune recipe.yaml method=prefix-tuning lr=1e-2 output=runs/prefix
    """
    read = open_recipe(recipe, overrides)
    if read.train.apart:
        from ..training.sweep import prepare_prompts

        log(f"reading the rows and loading {read.model} …")

        def make(claim: Callable[[Sequence[Recipe]], None]) -> tuple[list[Prepared], list[str]]:
            runs = prepare_prompts(read, before_loading=claim)
            return runs, [run.prompts[0] for run in runs]

        return run_together(make, restart=restart, overwrite=overwrite, json=json)
    from .._system.run_lock import held
    from ..training.output_folder import check_room
    from ..training.prepare import prepare
    from ..training.tune import Interrupted
    from ..training.tune import tune as tune_prepared

    command = _command(recipe, overrides)
    folder = Path(read.output)
    with held([folder]), Interruption() as interruption:
        try:
            check_room(read, restart=restart, overwrite=overwrite)
            say(f"reading the rows and loading {read.model} …")
            prepared = prepare(read)
            say(f"{read.method.name}: {prepared.trained_parameters:,} numbers to train")
            if prepared.carried is not None:
                say(str(prepared.carried))
            say(str(prepared.plan))

            run = tune_prepared(prepared, hooks=interruption.hooks(), restart=restart, overwrite=overwrite)
        except (Interrupted, KeyboardInterrupt):
            return _interrupted(folder, command)
    if run.was_finished:
        log("this run was finished before: nothing was trained now (--overwrite trains it again)")
    elif run.resumed_from:
        log(f"this run was resumed from step {run.resumed_from}")
    return Reply(_data(run), None if json else _text(run))


def _command(recipe: Path, overrides: Sequence[str] | None) -> str:
    """Return the command that resumes the run: without --restart and --overwrite, which would start again."""
    return shlex.join(["softprompt", "tune", str(recipe), *(overrides or [])])


def _interrupted(folder: Path, command: str) -> Reply:
    from ..training.checkpoint import saved_step

    step = saved_step(folder / "checkpoint")
    text = f"stopped; step {step} is saved in {folder}" if step else "stopped before the first save"
    data = {"interrupted": True, "step": step, "output": str(folder), "resume": command}
    return Reply(data, f"{text}. To resume, run the same command:\n  {command}", code=130)


def _data(run: Run) -> dict[str, Any]:
    manifest = run.artifact.manifest
    training = manifest["training"]
    return {
        "artifact": str(run.artifact.path),
        "method": manifest["method"],
        **manifest["dev"],
        "plain": manifest["plain"],
        "steps": training["steps"],
        "best_step": training["best_step"],
        "stopped": training["stopped"],
        "resumed_from": run.resumed_from,
        "was_finished": run.was_finished,
        "seconds": training["seconds"],
        "seconds_with_caches": training["seconds_with_caches"],
        "peak_memory_bytes": training["peak_memory_bytes"],
        "trained_parameters": manifest["trained_parameters"],
        "carried": manifest["carried"],
        "remarks": manifest["data"].get("remarks", []),
        "bytes": run.artifact.bytes,
    }


def _text(run: Run) -> str:
    manifest, path = run.artifact.manifest, run.artifact.path
    dev, plain, training = manifest["dev"], manifest["plain"], manifest["training"]
    rows = [("", manifest["method"], "plain model")]
    rows += [
        (name, scores(dev, name), scores(plain, name) if name in plain["metrics"] else "")
        for name in dev["metrics"]
    ]
    early = ", stopped early" if training["stopped"] == "early" else ""
    facts = [
        ("artifact", f"{path} ({size(run.artifact.bytes)})"),
        ("trained", f"{manifest['trained_parameters']:,} parameters"),
        ("steps", f"{training['steps']} (best: {training['best_step']}{early})"),
        ("time", f"{duration(training['seconds'])}, {duration(training['seconds_with_caches'])} with caches"),
        ("memory", f"{size(training['peak_memory_bytes'])} at most"),
    ]
    prompt = f" --prompt {shlex.quote(run.artifact.prompts[0])}" if len(run.artifact.prompts) > 1 else ""
    folder = shlex.quote(str(path))
    return "\n".join(
        [
            f"dev rows: {dev['n']} (with 95 % intervals)",
            table(rows),
            "",
            table(facts),
            "",
            "next:",
            f'  softprompt generate {folder} "your input"{prompt}',
            f"  softprompt eval {folder} --data FILE",
        ]
    )
