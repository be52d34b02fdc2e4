"""Whether training did its work: did the vectors move, was it at its end, was the rate well searched."""

from __future__ import annotations

from statistics import median

from .run import Finding, Run
from .untried import best_scores, beyond, search, untried

BARELY = 0.01  # of the start's norm
EVALUATIONS = 6  # fewer say nothing of a trend
FALL = 0.05  # of the loss, from one third of the run to the next


def barely_moved(run: Run) -> Finding | None:
    """By `training.moved` of the manifest: how far the parameters went, as a share of their start."""
    moved = run.manifest.get("training", {}).get("moved")
    if moved is None or moved >= BARELY:
        return None
    steps, lr = run.manifest["training"].get("best_step"), run.setting("train", "lr")
    what = "the prompt barely moved from where it started"
    evidence = f"at step {steps} its numbers are {100 * moved:.2g} % of their start's norm away from it"
    tried = any(rate >= 10 * lr for rate, _ in run.searched) if lr else bool(run.searched)
    mend = untried(run) if tried or not lr else run.tune(f"train.lr={lr * 10:.1e}")
    return Finding("warning", what, evidence, mend)


def still_falling(run: Run) -> Finding | None:
    """It ran to its end, the last dev score is the best, and the loss fell from the second "
    "third to the last."""
    training = run.manifest.get("training", {})
    history = training.get("history") or []
    if len(history) < EVALUATIONS or training.get("stopped") != "finished":
        return None
    if training.get("best_step") != training.get("steps"):
        return None
    losses = [entry["loss"] for entry in history]
    third = len(losses) // 3
    before, last = median(losses[-2 * third : -third]), median(losses[-third:])
    if last > before - FALL * abs(before):
        return None
    evidence = (
        f"median loss {before:.3g}, then {last:.3g} in the last third; of {len(losses)} dev scores the last "
    )
    mend = run.tune(f"train.steps={2 * training['steps']}")
    return Finding("note", "the loss was still falling at the end", evidence + "is the best", mend)


def rate_at_edge(run: Run) -> Finding | None:
    """The best of the learning rates that were tried is the smallest or the largest of them."""
    if (edge := beyond(run)) is None:
        return None
    best, rates = edge[0], sorted(best_scores(run))
    side = "smallest" if best == rates[0] else "largest"
    evidence = f"the best of {', '.join(f'{lr:g}' for lr in rates)} is the {side}, {best:g}"
    what = "the learning rate is at the edge of what was searched"
    return Finding("warning", what, evidence, search(run, edge[1]))
