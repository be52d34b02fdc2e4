"""A `Run` is the result of a training run; `Hooks` let a caller follow it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .._system.progress import say
from ..artifacts.artifact import Artifact
from ..evaluation.records import Evaluation
from .learner import Outcome
from .loop import Event
from .prepare import Prepared


@dataclass(frozen=True)
class Run:
    """A tuned prompt, and how it was trained."""

    prepared: Prepared
    outcome: Outcome
    artifact: Artifact
    dev: Evaluation  # without records where the run had been finished before
    plain: Evaluation  # the plain model on the same dev rows; without metrics where it was not requested
    resumed_from: int = 0  # the step of the checkpoint that the run resumed from
    was_finished: bool = False  # by an earlier call: nothing was trained now

    @property
    def key(self) -> tuple[float, ...]:
        """Return the score on the dev rows; higher is better."""
        return tuple(self.artifact.manifest["training"]["dev_key"])


@dataclass
class Hooks:
    """Functions that are called while a run is trained. Every hook may be left out."""

    on_stage: Callable[[str], None] = lambda text: None
    on_cache: Callable[[int, int], None] = lambda done, total: None
    on_event: Callable[[Event], None] = lambda event: None
    should_stop: Callable[[], bool] = lambda: False
    is_pruned: Callable[[int], bool] = lambda learner: False  # True ends this learner

    def stage(self, text: str) -> None:
        """Report that a new part of the work begins."""
        say(text)
        self.on_stage(text)


class Interrupted(Exception):
    """Training was stopped from outside; its state is saved."""

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(f"stopped at step {step}")
        self.step, self.folder = step, folder
