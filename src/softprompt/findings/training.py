"""Whether training did its work: did the vectors move, was it at its end, was the rate well searched."""

from __future__ import annotations

from statistics import median

from .run import Finding, Run

BARELY = 0.01  # of the start's norm
EVALUATIONS = 6  # fewer say nothing of a trend
FALL = 0.05  # of the loss, from one third of the run to the next
RATES = 2  # fewer have no edge


def barely_moved(run: Run) -> Finding | None:
    """By `training.moved` of the manifest: how far the parameters went, as a share of their start."""
    moved = run.manifest.get("training", {}).get("moved")
    if moved is None or moved >= BARELY:
        return None
    steps, lr = run.manifest["training"].get("best_step"), run.setting("train", "lr")
    what = "the prompt barely moved from where it started"
    evidence = f"at step {steps} its numbers are {100 * moved:.2g} % of their start's norm away from it"
    mend = (
        run.tune(f"train.lr={lr * 10:.1e}")
        if lr
        else f"softprompt search {run.recipe} --over lr=1e-2,3e-2,1e-1"
    )
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
    scores: dict[float, float] = {}
    for lr, score in run.searched:
        scores[lr] = max(score, scores.get(lr, score))
    rates = sorted(scores)
    if len(rates) < RATES:
        return None
    best = max(rates, key=lambda lr: scores[lr])
    if best not in (rates[0], rates[-1]):
        return None
    inner = rates[1] if best == rates[0] else rates[-2]
    if scores[inner] == scores[best]:
        return None
    factor, side = (1 / 3, "smallest") if best == rates[0] else (3, "largest")
    beyond = ",".join(f"{best * factor**power:.2g}" for power in (1, 2))
    evidence = f"the best of {', '.join(f'{lr:g}' for lr in rates)} is the {side}, {best:g}"
    what = "the learning rate is at the edge of what was searched"
    return Finding("warning", what, evidence, f"softprompt search {run.recipe} --over lr={beyond}")
