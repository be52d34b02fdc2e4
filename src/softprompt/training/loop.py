"""The training loop trains one learner, or many whose rows go through the frozen model side by side.

Everything random is a function of (seed, epoch), and the checkpoint holds the rest, so a run that was
killed at any step ends with the same bytes as one that was not. This file knows nothing of models, of
templates, of how losses are computed, or of how dev scores are made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..evaluation.records import DevScore
from .learner import Learner, Outcome

SAVE_SHARE = 0.05  # of the time, at most, where many learners are saved

#: From (learner, the rows of its next step): the losses, whose gradients have been added to the parameters.
Backward = Callable[[Sequence[tuple[int, list[int]]]], Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Event:
    """A step that was taken, as a progress display receives it."""

    step: int
    steps: int
    loss: float
    lr: float
    seconds_left: float  # of the whole run; too many after the first step, which warms the machine up
    dev: DevScore | None = None  # where this step was evaluated
    is_best: bool = False
    learner: int = 0
    rows: Sequence[int] = ()  # by number, that the step learned from
    seconds: float = 0.0  # of the step, without scoring the dev rows; a share where several learn in one pass


def fit_together(
    learners: Sequence[Learner],
    backward: Backward,
    *,
    groups: Callable[[Sequence[int]], Iterator[list[int]]] = lambda active: ([i] for i in active),
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    is_pruned: Callable[[int], bool] = lambda learner: False,
    evaluation_seconds: float = 0.0,
) -> list[Outcome]:
    """Train every learner until its steps are done, patience ends or its loss is not finite.

    In each round, every active learner takes a step. `groups` splits the active learners (by number) into
    those that go through the model together. After a round, learners for which `is_pruned` holds end.
    All learners are saved after the same rounds, and `should_stop` stops them between two rounds, so that
    they can be resumed together (see `checkpoint.together`). `evaluation_seconds` is the expected time of
    scoring the dev rows once; it counts until an evaluation has been timed.
    """
    clock, saves = Remaining(learners, evaluation_seconds), Saves()
    while active := [i for i, learner in enumerate(learners) if learner.stopped is None]:
        if should_stop():
            break
        evaluations: list[Event] = []
        for group in groups(active):
            for event in _take_step(group, learners, backward, clock):
                if event.dev is not None:
                    evaluations.append(event)
                else:
                    on_event(event)
        ended = any(learners[index].stopped is not None for index in active)
        if evaluations or ended or any(learners[index].is_old for index in active):
            saves.save(learners)
        for event in evaluations:  # once they are saved
            on_event(event)
        for index in active:
            if learners[index].stopped is None and is_pruned(index):
                learners[index].stopped = "pruned"
    return [learner.end() for learner in learners]


def _take_step(
    group: Sequence[int],
    learners: Sequence[Learner],
    backward: Backward,
    clock: Remaining,
) -> Iterator[Event]:
    """Take one step of each learner in the group, and score the dev rows where that is due."""
    started = time.perf_counter()
    for index in group:
        learners[index].forget_gradients()
    chosen = [(index, learners[index].rows) for index in group]
    losses, rows = backward(chosen), dict(chosen)
    learned = [
        (index, loss) for index, loss in zip(group, losses, strict=True) if learners[index].learn(loss)
    ]
    elapsed = time.perf_counter() - started
    clock.stepped(len(group), elapsed)
    share = elapsed / len(group)
    left = clock.seconds_left()  # it counts all learners: not again for each of a thousand
    for index, loss in learned:
        learner, dev, is_best = learners[index], None, False
        started = time.perf_counter()
        if learner.is_due:
            dev, is_best = learner.evaluate(loss.item())
            clock.evaluated(time.perf_counter() - started)
            left = clock.seconds_left()
        learner.spent(share + time.perf_counter() - started)
        state = learner.state
        yield Event(
            state.step,
            learner.optimization.steps,
            loss.item(),
            learner.lr,
            left,
            dev,
            is_best,
            index,
            rows[index],
            share,
        )


class Saves:
    """Saves all learners after the same rounds, so seldom that a twentieth of the time is spent on it.

    A thousand learners take seconds to save. A run that is killed repeats the steps since the last save, to
    the same bytes. Where saving takes less than a second, no save is left out.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._cost, self._last = clock, 0.0, clock()

    def save(self, learners: Sequence[Learner]) -> None:
        """Save all learners, unless the last save is too recent for what it cost."""
        started = self._clock()
        if self._cost > 1 and started - self._last < self._cost / SAVE_SHARE:
            return
        for learner in learners:
            learner.save()
        self._last = self._clock()
        self._cost = self._last - started


class Remaining:
    """Estimates the time left: steps by the pace of steps, evaluations of the dev rows by their own.

    The first step counts only until there is a second: it also warms the machine up.
    """

    def __init__(self, learners: Sequence[Learner], evaluation_seconds: float = 0.0) -> None:
        self._learners, self._evaluation = learners, evaluation_seconds
        self._first, self._steps, self._step_seconds = 0.0, 0, 0.0
        self._evaluations, self._evaluation_seconds = 0, 0.0

    def stepped(self, steps: int, seconds: float) -> None:
        """Count the steps of so many learners, which took `seconds` together."""
        if not self._first:
            self._first = seconds / steps
        else:
            self._steps, self._step_seconds = self._steps + steps, self._step_seconds + seconds

    def evaluated(self, seconds: float) -> None:
        """Count one evaluation of the dev rows."""
        self._evaluations += 1
        self._evaluation_seconds += seconds

    def seconds_left(self) -> float:
        """Return the time left if no learner ends early."""
        active = [learner for learner in self._learners if learner.stopped is None]
        step = self._step_seconds / self._steps if self._steps else self._first
        evaluation = self._evaluation
        if self._evaluations:
            evaluation = self._evaluation_seconds / self._evaluations
        steps = sum(x.optimization.steps - x.state.step for x in active)
        evaluations = sum(x.optimization.evaluations_after(x.state.step) for x in active)
        return steps * step + evaluations * evaluation
