"""A learner holds the training state of one prompt: parameters, optimizer, schedule, order of rows, the best.

Several learners may take their steps in one pass through the model (`loop.fit_together`). They share nothing,
so the gradient, clipping or early stop of one never affects another. This file knows nothing of models,
templates or losses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from torch import Tensor

from ..evaluation.records import DevScore
from .average import Average
from .checkpoint import Checkpoints, Saved, TrainingCounts
from .sampler import BatchSampler

Schedule = Literal["cosine", "linear", "constant"]
Stopped = Literal["finished", "early", "interrupted", "nan", "pruned"]
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome says how a run ended.

    The method holds the best parameters, unless `stopped` is "interrupted".
    """

    stopped: Stopped
    step: int
    best_step: int
    # of training and dev evaluation, over all resumed parts; a share of what was done for several runs
    seconds: float
    history: list[dict] = field(default_factory=list)
    other_seconds: float = 0.0  # of caches and the plain model, counted in the same way


@dataclass(frozen=True)
class Optimization:
    """The optimizer (AdamW) and its schedule have these settings."""

    steps: int
    lr: float
    batch_size: int = 32
    base_lr: float = 0.0
    weight_decay: float = 0.0
    warmup: float = 0.05
    schedule: Schedule = "cosine"
    clip: float = 1.0
    eval_every: int | None = None
    patience: int | None = None
    seed: int = 0
    batch_tokens: int | None = None  # padded tokens a step, in place of `batch_size` rows
    average: float = 0.0  # share of the steps that an average of the parameters remembers; 0: none is kept

    @property
    def steps_between_evaluations(self) -> int:
        """Return `eval_every`; by default five evaluations a run, and at least one every 100 steps."""
        return self.eval_every or max(1, min(100, self.steps // 5))

    def evaluations_after(self, step: int) -> int:
        """Return how many evaluations of the dev rows follow after so many steps."""
        between = self.steps_between_evaluations
        return -(-self.steps // between) - step // between if step < self.steps else 0

    def factor(self, step: int) -> float:
        """Return the learning rate of a step (from 0) as a share of the largest."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1 - done if self.schedule == "linear" else 1.0


@final
class Learner:
    """Holds named parameters ("prompt.…", "base.…") and all that their training needs between two steps.

    `lengths` are the lengths of its rows. Where they are given, it resumes from `start`, and writes
    `checkpoints`. `resumed_from` is the step of `start`. `step_rows` may add rows to those of a step.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        lengths: Sequence[int],
        dev_score: Callable[[], DevScore],
        optimization: Optimization,
        *,
        checkpoints: Checkpoints | None = None,
        start: Saved | None = None,
        step_rows: Callable[[int, list[int]], list[int]] = lambda step, rows: rows,
    ) -> None:
        self.parameters, self.optimization = dict(parameters), optimization
        self.stopped: Stopped | None = None
        self._sampler = BatchSampler(
            lengths, optimization.batch_size, optimization.seed, optimization.batch_tokens
        )
        self._dev_score, self._checkpoints, self._step_rows = dev_score, checkpoints, step_rows
        self._optimizer = _optimizer(self.parameters, optimization)
        self.state, self._best = TrainingCounts(), self._copy()
        self.average = Average(self.parameters, optimization) if optimization.average else None
        if start is not None:
            self.state, self._best = start.fill(self.parameters, self._optimizer)
            if self.average is not None:
                start.fill_average(self.average.values)
        if checkpoints is not None:
            checkpoints.begin_with(start)
        self.resumed_from = self.state.step
        self.stopped = self.state.ended
        self._saved, self._saved_state = time.perf_counter(), self._mark() if start else None
        self._end_if_done()

    @property
    def rows(self) -> list[int]:
        """Return the row numbers of the next step."""
        return self._step_rows(self.state.step, self._sampler.batch(self.state.step))

    @property
    def lr(self) -> float:
        """Return the learning rate of the last step."""
        return self._optimizer.param_groups[0]["lr"]

    def forget_gradients(self) -> None:
        """Clear the gradients before a step."""
        self._optimizer.zero_grad(set_to_none=True)

    def learn(self, loss: Tensor) -> bool:
        """Update the parameters; where the loss or a gradient is not finite, stop and return False."""
        finite = bool(torch.isfinite(loss))
        if finite:
            norm = torch.nn.utils.clip_grad_norm_(
                list(self.parameters.values()), self.optimization.clip or math.inf
            )
            finite = bool(torch.isfinite(norm))
        if not finite:
            self.stopped = "nan"
            return False
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * self.optimization.factor(self.state.step)
        self._optimizer.step()
        self.state.step += 1
        if self.average is not None:
            self.average.add(self.parameters, self.state.step)
        return True

    @property
    def is_due(self) -> bool:
        """True where the dev rows are to be scored after this step."""
        return (
            self.state.step % self.optimization.steps_between_evaluations == 0
            or self.state.step == self.optimization.steps
        )

    def evaluate(self, loss: float) -> tuple[DevScore, bool]:
        """Score the dev rows and keep the parameters where they are the best so far."""
        with self.average.in_place_of(self.parameters) if self.average is not None else nullcontext():
            dev = self._dev_score()
            is_best = self.state.note(dev.key)
            if is_best:
                self._best = self._copy()
        self.state.history.append({"step": self.state.step, "loss": loss, dev.name: dev.shown})
        self._end_if_done()
        return dev, is_best

    def spent(self, seconds: float) -> None:
        """Count the time of a step or an evaluation."""
        self.state.seconds += seconds

    @property
    def is_old(self) -> bool:
        """True where the last checkpoint was written more than a minute ago."""
        return time.perf_counter() - self._saved > CHECKPOINT_SECONDS

    def save(self) -> None:
        """Write a checkpoint, unless the last one holds the same state."""
        self.state.ended = None if self.stopped == "interrupted" else self.stopped
        if self._checkpoints is not None and self._mark() != self._saved_state:
            average = {} if self.average is None else self.average.values
            self._checkpoints.write(self.parameters, self._optimizer, self.state, self._best, average)
            self._saved_state = self._mark()
        self._saved = time.perf_counter()

    def end(self) -> Outcome:
        """Save, and put the best parameters in place (unless it was interrupted).

        A pruned learner is not saved here but with the next step of the others: where the time is over, all
        are pruned, and the next run may allow more time.
        """
        if self.stopped != "pruned":
            self.save()
        state, stopped = self.state, self.stopped or "interrupted"
        if stopped == "nan" or (stopped != "interrupted" and state.best is not None):
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(self._best[name])
        return Outcome(
            stopped, state.step, state.best_step, state.seconds, state.history, state.other_seconds
        )

    def _copy(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def _mark(self) -> tuple:
        """Return a value that changes with the state that a checkpoint holds, except seconds."""
        return self.state.step, len(self.state.history), self.state.ended

    def _end_if_done(self) -> None:
        patience = self.optimization.patience
        if self.stopped is not None:
            return
        if self.state.step >= self.optimization.steps:
            self.stopped = "finished"
        elif patience is not None and self.state.evaluations_without_best >= patience:
            self.stopped = "early"


def _optimizer(parameters: dict[str, Tensor], optimization: Optimization) -> torch.optim.AdamW:
    groups = []
    for prefix, lr in (("prompt.", optimization.lr), ("base.", optimization.base_lr)):
        members = [p for name, p in parameters.items() if name.startswith(prefix)]
        if members:
            groups.append({"params": members, "lr": lr, "peak": lr})
    return torch.optim.AdamW(groups, weight_decay=optimization.weight_decay)
