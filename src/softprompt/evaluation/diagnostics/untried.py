"""Findings on a poor score propose settings that a run has not tried yet."""

from __future__ import annotations

from .run import Run

RATES = (1e-3, 3e-3, 1e-2, 3e-2)  # learning rates to search where nothing better is known


def untried(run: Run) -> str:
    """Return a command that searches untried learning rates or, where the best is inside them, more steps."""
    if (edge := beyond(run)) is not None:
        return search(run, edge[1])
    known = {run.setting("train", "lr"), *(lr for lr, _ in run.searched)}
    scores = best_scores(run)
    if len(scores) < 2:
        return search(run, [lr for lr in RATES if lr not in known])
    best = max(scores, key=lambda lr: (scores[lr], lr))
    steps = run.manifest.get("training", {}).get("steps") or run.setting("train", "steps")
    if not steps:
        return ""
    return run.tune(f"train.lr={best:g}", f"train.steps={2 * steps}")


def best_scores(run: Run) -> dict[float, float]:
    """Return the best dev score of each learning rate that was searched."""
    scores: dict[float, float] = {}
    for lr, score in run.searched:
        scores[lr] = max(score, scores.get(lr, score))
    return scores


def beyond(run: Run) -> tuple[float, list[float]] | None:
    """Return the best rate, if it is the smallest or largest of those searched, and two rates farther out.

    None where fewer than two rates were searched, where the best is inside them, or where its neighbour is as
    good.
    """
    scores = best_scores(run)
    rates = sorted(scores)
    if len(rates) < 2:
        return None
    best = max(rates, key=lambda lr: scores[lr])
    if best not in (rates[0], rates[-1]):
        return None
    inner = rates[1] if best == rates[0] else rates[-2]
    if scores[inner] == scores[best]:
        return None
    factor = 1 / 3 if best == rates[0] else 3
    return best, [best * factor, best * factor**2]


def search(run: Run, rates: list[float]) -> str:
    """Return the command that searches these rates."""
    return run.search(f"lr={','.join(f'{lr:.2g}' for lr in rates)}")
