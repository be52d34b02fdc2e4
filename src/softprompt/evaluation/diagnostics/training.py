"""Training is checked: whether the vectors moved, had finished learning, and at which learning rates."""

from __future__ import annotations

from statistics import median

from .run import Finding, Run
from .untried import best_scores, beyond, search, untried

BARELY = 0.01  # of the start's norm
EVALUATIONS = 6  # fewer show no trend
FALL = 0.05  # of the loss, from one third of the run to the next


def barely_moved(run: Run) -> Finding | None:
    """Report a small `training.moved` of the manifest: how far parameters went, as a share of their start."""
    moved = run.manifest.get("training", {}).get("moved")
    if moved is None or moved >= BARELY:
        return None
    steps, lr = run.manifest["training"].get("best_step"), run.setting("train", "lr")
    summary = "the prompt barely moved from where it started"
    evidence = f"at step {steps} its vectors have moved by {100 * moved:.2g} % of the norm of their start"
    tried = any(rate >= 10 * lr for rate, _ in run.searched) if lr else bool(run.searched)
    fix = untried(run) if tried or not lr else run.tune(f"train.lr={lr * 10:.1e}")
    return Finding("warning", summary, evidence, fix)


def still_falling(run: Run) -> Finding | None:
    """Report a run that ran to its end, with the last dev score best and the loss still falling."""
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
    fix = run.tune(f"train.steps={2 * training['steps']}")
    return Finding("note", "the loss was still falling at the end", evidence + "is the best", fix)


def rate_at_edge(run: Run) -> Finding | None:
    """Report that the best learning rate is the smallest or the largest of those that were tried."""
    if (edge := beyond(run)) is None:
        return None
    best, rates = edge[0], sorted(best_scores(run))
    side = "smallest" if best == rates[0] else "largest"
    evidence = f"the best of {', '.join(f'{lr:g}' for lr in rates)} is the {side}, {best:g}"
    summary = "the learning rate is at the edge of what was searched"
    return Finding("warning", summary, evidence, search(run, edge[1]))
