"""The training loop: one learner, or many whose rows go through the frozen model side by side.

Everything random is a function of (seed, epoch), and the checkpoint holds the rest, so a run that was
killed at any step ends with the same bytes as one that was not. This file knows nothing of templates, of
how losses are computed, or of how dev scores are made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..evaluation.evaluator import DevScore
from ..lm.base import LanguageModel
from ..lm.finetune import trained_weights
from ..methods.base import SoftPrompt
from .checkpoint import Checkpoints, together
from .learner import Learner, Optimization, Outcome

__all__ = ["DevScore", "Event", "Optimization", "Outcome", "fit", "fit_together", "named_parameters"]

#: From (learner, the rows of its next step): the losses, whose gradients have been added to the parameters.
Backward = Callable[[Sequence[tuple[int, list[int]]]], Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Event:
    """What a progress display is told after a step."""

    step: int
    steps: int
    loss: float
    lr: float
    seconds_left: float  # of the whole run; too many after the first step, which warms the machine up
    dev: DevScore | None = None  # where this step was evaluated
    is_best: bool = False
    learner: int = 0


def fit(
    lm: LanguageModel,
    method: SoftPrompt,
    loss_of: Callable[[list[int]], Tensor],
    lengths: Sequence[int],
    dev_score: Callable[[], DevScore],
    how: Optimization,
    *,
    folder: Path | None = None,
    identity: str = "",
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train until the steps are done, patience ends, the loss is not finite, or `should_stop`.

    `loss_of(rows)` is the loss of a batch of row numbers; for the rest see `Learner`.
    """
    parameters = named_parameters(lm, method)
    kept = None if folder is None else Checkpoints(folder, {"settings": {"recipe": identity}})
    start = None if kept is None else together([kept])[0]
    learner = Learner(parameters, lengths, dev_score, how, checkpoints=kept, start=start)

    def backward(parts: Sequence[tuple[int, list[int]]]) -> list[Tensor]:
        loss = loss_of(parts[0][1])
        if bool(torch.isfinite(loss.detach())):
            loss.backward()
        return [loss.detach()]

    return fit_together([learner], backward, on_event=on_event, should_stop=should_stop)[0]


def fit_together(
    learners: Sequence[Learner],
    backward: Backward,
    *,
    groups: Callable[[Sequence[int]], Iterator[list[int]]] = lambda active: ([i] for i in active),
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    is_pruned: Callable[[int], bool] = lambda learner: False,
    evaluation_seconds: float = 0.0,
) -> list[Outcome]:
    """Train every learner to its own end; in each round, each that is not done takes a step.

    `groups` parts the learners (by number) of a round into those that go through the model together. After a
    round, those that lie behind (`is_pruned`) end. All are saved after the same rounds, and stopped between
    two, so that they can be taken up together: see `checkpoint.together`. `evaluation_seconds` is what
    scoring the dev rows once is thought to take, until it has been timed.
    """
    clock = Remaining(learners, evaluation_seconds)
    while active := [i for i, learner in enumerate(learners) if learner.stopped is None]:
        if should_stop():
            break
        evaluations: list[Event] = []
        for group in groups(active):
            for event in _step_of(group, learners, backward, clock):
                if event.dev is not None:
                    evaluations.append(event)
                elif on_event:
                    on_event(event)
        ended = any(learners[index].stopped is not None for index in active)
        if evaluations or ended or any(learners[index].is_old for index in active):
            for learner in learners:
                learner.save()
        for event in evaluations:  # once they are saved
            if on_event:
                on_event(event)
        for index in active:
            if learners[index].stopped is None and is_pruned(index):
                learners[index].stopped = "pruned"
    return [learner.end() for learner in learners]


def _step_of(
    group: Sequence[int],
    learners: Sequence[Learner],
    backward: Backward,
    clock: Remaining,
) -> Iterator[Event]:
    """One step of each learner in the group, and the dev scores that are due."""
    started = time.perf_counter()
    for index in group:
        learners[index].forget_gradients()
    found = backward([(index, learners[index].rows) for index in group])
    learned = [(index, loss) for index, loss in zip(group, found, strict=True) if learners[index].learn(loss)]
    took = time.perf_counter() - started
    clock.stepped(len(group), took)
    share = took / len(group)
    for index, loss in learned:
        learner, dev, is_best = learners[index], None, False
        started = time.perf_counter()
        if learner.is_due:
            dev, is_best = learner.evaluate(loss.item())
            clock.evaluated(time.perf_counter() - started)
        learner.spent(share + time.perf_counter() - started)
        state, left = learner.state, clock.seconds_left()
        yield Event(state.step, learner.how.steps, loss.item(), learner.lr, left, dev, is_best, index)


class Remaining:
    """Time left: steps by their own pace, evaluations of the dev rows by theirs.

    The first step counts only until there is a second: it also warms the machine up.
    """

    def __init__(self, learners: Sequence[Learner], evaluation_seconds: float = 0.0) -> None:
        self._learners, self._evaluation = learners, evaluation_seconds
        self._first, self._steps, self._step_seconds = 0.0, 0, 0.0
        self._evaluations, self._evaluation_seconds = 0, 0.0

    def stepped(self, steps: int, seconds: float) -> None:
        """So many learners took a step in this time."""
        if not self._first:
            self._first = seconds / steps
        else:
            self._steps, self._step_seconds = self._steps + steps, self._step_seconds + seconds

    def evaluated(self, seconds: float) -> None:
        """The dev rows were scored once."""
        self._evaluations += 1
        self._evaluation_seconds += seconds

    def seconds_left(self) -> float:
        """If no learner ends early."""
        active = [x for x in self._learners if x.stopped is None]
        step = self._step_seconds / self._steps if self._steps else self._first
        evaluation = self._evaluation
        if self._evaluations:
            evaluation = self._evaluation_seconds / self._evaluations
        steps = sum(x.how.steps - x.state.step for x in active)
        evaluations = sum(x.how.evaluations_after(x.state.step) for x in active)
        return steps * step + evaluations * evaluation


def named_parameters(lm: LanguageModel, method: SoftPrompt) -> dict[str, Tensor]:
    """Everything that is trained: the prompt's parameters and, where it is not frozen, the base's."""
    own = {f"prompt.{name}": p for name, p in method.named_parameters() if p.requires_grad}
    return own | {f"base.{name}": p for name, p in trained_weights(lm).items()}
