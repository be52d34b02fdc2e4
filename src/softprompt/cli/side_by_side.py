"""Several prompts are trained side by side and listed, by `search` and by `tune` with `apart: true`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._system.progress import say
from .interruption import Interruption
from .output import Reply, scores, table

if TYPE_CHECKING:
    from .._system.world import World
    from ..config.schema import Recipe
    from ..training.prepare import Prepared
    from ..training.tune import Run


Prepare = Callable[[Callable[[Sequence["Recipe"]], None]], tuple[Sequence["Prepared"], Sequence[str]]]


def run_together(make: Prepare, world: World, *, restart: bool, overwrite: bool, json: bool) -> Reply:
    """Train all of them; the reply lists them, the best first.

    `make` prepares the runs and names them. It calls its argument with their recipes before anything slow,
    so that folders that are in use or hold something are refused at once.
    """
    from ..training.data_parallel import held_by_first
    from ..training.output_folder import check_room
    from ..training.sweep_estimate import say_ahead
    from ..training.tune import Interrupted, tune_many

    with contextlib.ExitStack() as held_folders, Interruption(waits=world.rank > 0) as interruption:

        def claim(recipes: Sequence[Recipe]) -> None:
            folders = [Path(recipe.output) for recipe in recipes]
            held_folders.enter_context(held_by_first(world, folders))
            for recipe in recipes:
                world.first(lambda recipe=recipe: check_room(recipe, restart=restart, overwrite=overwrite))

        runs, names = make(claim)

        say(f"{len(runs)} prompts, {runs[0].trained_parameters:,} numbers in the first")
        if world.size == 1:
            say_ahead(runs, restart=restart, overwrite=overwrite)
        try:
            done = tune_many(runs, hooks=interruption.hooks(), restart=restart, overwrite=overwrite)
        except (Interrupted, KeyboardInterrupt) as error:
            if world.size > 1 and isinstance(error, KeyboardInterrupt):
                raise  # the other processes have not stopped with this one
            data = {"interrupted": True, "output": [run.recipe.output for run in runs]}
            return Reply(data, "stopped, and saved. To resume, run the same command again.", code=130)
    ranked = sorted(zip(names, done, strict=True), key=lambda pair: pair[1].key, reverse=True)
    best = ranked[0][1].artifact
    data = {"runs": [_entry(name, run) for name, run in ranked], "best": str(best.path)}
    return Reply(data, None if json else _text(ranked))


def _entry(name: str, run: Run) -> dict[str, Any]:
    training = run.artifact.manifest["training"]
    return {
        "name": name,
        "artifact": str(run.artifact.path),
        **run.artifact.manifest["dev"],
        "plain": run.artifact.manifest["plain"],
        "resumed_from": run.resumed_from,
        "was_finished": run.was_finished,
        **{key: training[key] for key in ("steps", "best_step", "stopped", "seconds")},
    }


def _text(ranked: Sequence[tuple[str, Run]]) -> str:
    names = list(ranked[0][1].dev.metrics)
    same = len({str(run.artifact.manifest["plain"]) for _, run in ranked}) == 1
    rows: list[tuple[Any, ...]] = [("", *names, "steps", "best", "ended")]

    def plain(run: Run, title: str) -> tuple[Any, ...]:
        return title, *(scores(run.artifact.manifest["plain"], metric) for metric in names), "", "", ""

    for name, run in ranked:
        shown = [scores(run.artifact.manifest["dev"], metric) for metric in names]
        ended = {"nan": "loss not finite", "early": "early"}.get(run.outcome.stopped, "")
        if run.was_finished:
            ended = "before"
        rows.append((name, *shown, run.outcome.step, run.outcome.best_step, ended))
        if not same:
            rows.append(plain(run, "  plain model"))
    if same:
        rows.append(plain(ranked[0][1], "plain model"))
    chosen = (
        "The best was chosen on these dev rows, so its score here is optimistic: evaluate it on other rows.\n"
        if same
        else ""
    )
    return "\n".join(
        [
            f"dev rows: {ranked[0][1].artifact.manifest['dev']['n']} (with 95 % intervals)",
            table(rows),
            chosen,
            "next:",
            f"  softprompt eval '{ranked[0][1].artifact.path}' --data FILE",
        ]
    )
