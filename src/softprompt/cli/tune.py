"""`softprompt tune` trains a recipe's prompt, compares it with the plain model, and saves it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._system.progress import say
from .interruption import Interruption
from .opening import Overrides, Overwrite, RecipeFile, Restart, open_recipe
from .output import Json, Reply, duration, scores, size, table
from .processes import of_first, one_run, started_for
from .side_by_side import run_together

if TYPE_CHECKING:
    from .._system.world import World
    from ..config.schema import Recipe
    from ..training.prepare import Prepared
    from ..training.tune import Run


def tune(
    recipe: RecipeFile,
    overrides: Overrides = None,
    restart: Restart = False,
    overwrite: Overwrite = False,
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
    command = ["tune", str(recipe), *(overrides or [])]
    flags = {"--restart": restart, "--overwrite": overwrite, "--json": json}
    read = None
    try:
        with one_run() as world:
            read = open_recipe(recipe, overrides)
            if (reply := started_for(read, world, command, flags)) is not None:
                return reply
            if read.train.apart:
                return of_first(world, _each_prompt(read, world, restart, overwrite, json))
            return of_first(world, _one_prompt(read, world, restart, overwrite, json, command))
    except KeyboardInterrupt:
        if read is None or read.train.apart:
            raise
        return _interrupted(Path(read.output), command)


def _one_prompt(
    read: Recipe, world: World, restart: bool, overwrite: bool, json: bool, command: Sequence[str]
) -> Reply:
    from ..training.data_parallel import held_by_first
    from ..training.output_folder import check_room
    from ..training.prepare import prepare
    from ..training.tune import Interrupted
    from ..training.tune import tune as tune_prepared

    folder = Path(read.output)
    with held_by_first(world, [folder]), Interruption(waits=world.rank > 0) as interruption:
        try:
            world.first(lambda: check_room(read, restart=restart, overwrite=overwrite))
            say(f"reading the rows and loading {read.model} …")
            prepared = prepare(read, world=world)
            if world.size > 1:
                say(f"{world.size} processes train together")
            say(f"{read.method.name}: {prepared.trained_parameters:,} numbers to train")
            if prepared.carried is not None:
                say(str(prepared.carried))
            for name, near in prepared.nearest.items():
                say(f"{name}: starts from {near}")
            say(str(prepared.plan))

            run = tune_prepared(prepared, hooks=interruption.hooks(), restart=restart, overwrite=overwrite)
        except Interrupted:
            return _interrupted(folder, command)
    if run.was_finished:
        say("this run was finished before: nothing was trained now (--overwrite trains it again)")
    elif run.resumed_from:
        say(f"this run was resumed from step {run.resumed_from}")
    return Reply(_data(run), None if json else _text(run))


def _each_prompt(read: Recipe, world: World, restart: bool, overwrite: bool, json: bool) -> Reply:
    from ..training.sweep import prepare_prompts

    say(f"reading the rows and loading {read.model} …")

    def make(claim: Callable[[Sequence[Recipe]], None]) -> tuple[list[Prepared], list[str]]:
        runs = prepare_prompts(read, before_loading=claim, world=world)
        return runs, [run.prompts[0] for run in runs]

    return run_together(make, world, restart=restart, overwrite=overwrite, json=json)


def _interrupted(folder: Path, command: Sequence[str]) -> Reply:
    from ..training.checkpoint import saved_step

    step = saved_step(folder / "checkpoint")
    # without --restart and --overwrite, which would start again
    resume = shlex.join(["softprompt", *command])
    text = f"stopped; step {step} is saved in {folder}" if step else "stopped before the first save"
    data = {"interrupted": True, "step": step, "output": str(folder), "resume": resume}
    return Reply(data, f"{text}. To resume, run the same command:\n  {resume}", code=130)


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
        "leakage": training.get("leakage"),
        "trained_parameters": manifest["trained_parameters"],
        "carried": manifest["carried"],
        "remarks": manifest["data"].get("remarks", []),
        "bytes": run.artifact.bytes,
    }


def _text(run: Run) -> str:
    from ..artifacts.manifest import using_command

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
    if (text := training.get("leakage")) is not None:
        parts = [_change(text[name]) for name in ("before", "after")]
        facts.append(("other text", f"{parts[1]} nats a token on unrelated text; at the start {parts[0]}"))
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
            f'  softprompt {using_command(manifest["recipe"])} {folder} "your input"{prompt}',
            f"  softprompt eval {folder} --data FILE",
        ]
    )


def _change(score: dict[str, Any]) -> str:
    """Write the change on unrelated text with its interval."""
    return f"{score['value']:+.3f} [{score['low']:+.3f}, {score['high']:+.3f}]"
