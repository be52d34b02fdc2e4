"""One learner, trained alone by the training loop: what tests of the loop, of resume and of methods need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt.evaluation.records import DevScore
from softprompt.training.checkpoint import Checkpoints, together
from softprompt.training.learner import Learner, Optimization, Outcome
from softprompt.training.loop import fit_together
from softprompt.training.trained import named_parameters


def fit(
    lm,
    method,
    loss_of: Callable[[list[int]], Tensor],
    lengths: Sequence[int],
    dev_score: Callable[[], DevScore],
    optimization: Optimization,
    *,
    folder: Path | None = None,
    identity: str = "",
    **following: Any,
) -> Outcome:
    """Train by `loss_of(rows)`, the loss of a batch of row numbers; resume from the state in `folder`."""
    checkpoints = None if folder is None else Checkpoints(folder, {"settings": {"recipe": identity}})
    start = None if checkpoints is None else together([checkpoints])[0]
    parameters = named_parameters(lm, method)
    learner = Learner(parameters, lengths, dev_score, optimization, checkpoints=checkpoints, start=start)

    def backward(parts: Sequence[tuple[int, list[int]]]) -> list[Tensor]:
        loss = loss_of(parts[0][1])
        if bool(torch.isfinite(loss.detach())):
            loss.backward()
        return [loss.detach()]

    return fit_together([learner], backward, **following)[0]
