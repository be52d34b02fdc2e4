"""What `search` and a `tune` of prompts apart have in common: a run side by side, and how each came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..progress import say
from .interruption import Interruption
from .output import Reply, scores, table

if TYPE_CHECKING:
    from ..prepare import Prepared
    from ..tuning import Run


def run_together(
    runs: Sequence[Prepared], names: Sequence[str], *, restart: bool, overwrite: bool, json: bool
) -> Reply:
    """Train them all; the reply lists them, the best first."""
    from ..tuning import Hooks, Interrupted, tune_many

    with Interruption() as interruption:

        def stage(text: str) -> None:
            interruption.under_way = text.startswith("training")

        say(f"{len(runs)} prompts, {runs[0].trained_parameters:,} numbers in the first")
        hooks = Hooks(on_stage=stage, should_stop=lambda: interruption.asked)
        try:
            done = tune_many(runs, hooks=hooks, restart=restart, overwrite=overwrite)
        except (Interrupted, KeyboardInterrupt):
            data = {"interrupted": True, "output": [run.recipe.output for run in runs]}
            return Reply(data, "stopped, and saved. To go on, type the same again.", code=130)
    found = sorted(zip(names, done, strict=True), key=lambda pair: _rank(pair[1]), reverse=True)
    best = found[0][1].artifact
    data = {"runs": [_entry(name, run) for name, run in found], "best": str(best.path)}
    return Reply(data, None if json else _text(found))


def _rank(run: Run) -> tuple[float, ...]:
    from ..tuning import dev_key

    return dev_key(run.dev).key


def _entry(name: str, run: Run) -> dict[str, Any]:
    training = run.artifact.manifest["training"]
    return {
        "name": name,
        "artifact": str(run.artifact.path),
        **run.dev.to_json(),
        "plain": run.plain.to_json(),
        **{key: training[key] for key in ("steps", "best_step", "stopped", "seconds")},
    }


def _text(found: Sequence[tuple[str, Run]]) -> str:
    names = list(found[0][1].dev.metrics)
    same = len({str(run.plain.to_json()) for _, run in found}) == 1
    rows: list[tuple[Any, ...]] = [("", *names, "steps", "best", "ended")]

    def plain(run: Run, title: str) -> tuple[Any, ...]:
        return title, *(scores(run.plain.to_json(), metric) for metric in names), "", "", ""

    for name, run in found:
        shown = [scores(run.dev.to_json(), metric) for metric in names]
        ended = {"nan": "loss not finite", "early": "early"}.get(run.outcome.stopped, "")
        rows.append((name, *shown, run.outcome.step, run.outcome.best_step, ended))
        if not same:
            rows.append(plain(run, "  plain model"))
    if same:
        rows.append(plain(found[0][1], "plain model"))
    chosen = "The best was chosen on these dev rows, so its score here flatters it.\n" if same else ""
    return "\n".join(
        [
            f"dev rows: {found[0][1].dev.n} (with 95 % intervals)",
            table(rows),
            chosen,
            "next:",
            f"  softprompt eval '{found[0][1].artifact.path}' --data FILE",
        ]
    )
