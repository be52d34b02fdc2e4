"""Every other tracker that accelerate knows, and tracker objects of the user's own.

accelerate's trackers share three calls (`store_init_configuration`, `log`, `finish`), and nothing by which a
run could be resumed. TensorBoard, MLflow, wandb and trackio are not used through them: MLflow's would write
into the active run of the user's own code, and none of them resumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from ..config.sections.track import TrackerConfig
from ..errors import SoftPromptError
from .base import Status, Subject, Tracker, missing

PACKAGES = {"comet_ml": "comet-ml"}  # whose module has another name
CALLS = ("log", "finish")


@final
class AccelerateTracker(Tracker):
    """Writes numbers and the recipe's settings through an `accelerate.tracking.GeneralTracker`."""

    def __init__(self, config: TrackerConfig, subject: Subject, tracker: Any) -> None:
        super().__init__(config, subject)
        self._tracker = tracker  # a name, or an object that was started by nobody yet

    def start(self, id: str | None) -> str | None:
        if isinstance(self._tracker, str):
            from accelerate import PartialState
            from accelerate.tracking import LOGGER_TYPE_TO_CLASS

            PartialState()  # accelerate's trackers write to its log, which needs it
            kind = LOGGER_TYPE_TO_CLASS[self._tracker]
            folder = [self.config.dir or str(self.subject.folder)] if kind.requires_logging_directory else []
            self._tracker = kind(self.project, *folder, **self.config.options())
        for call, given in (("start", ()), ("store_init_configuration", (dict(self.subject.params),))):
            if (function := getattr(self._tracker, call, None)) is not None:
                function(*given)
        return None

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._tracker.log(dict(values), step=step)

    def end(self, scores: Mapping[str, float], facts: Mapping[str, str], step: int, status: Status) -> None:
        if scores:
            self._tracker.log({**scores, **facts}, step=step)
        self._tracker.finish()


def check(name: str) -> None:
    """Raise SoftPromptError where accelerate or the tracker's library is missing."""
    missing(name, "accelerate", "accelerate")
    missing(name, name, PACKAGES.get(name, name))


def check_object(tracker: Any) -> None:
    """Raise SoftPromptError where an object is no tracker."""
    lacking = [call for call in CALLS if not callable(getattr(tracker, call, None))]
    if lacking:
        raise SoftPromptError(
            f"track holds an object of the type {type(tracker).__name__}, which is no tracker",
            why=f"it has no method {' and no method '.join(lacking)}",
            fix="give a tracker's name, or an object with log(values, step) and finish()",
        )
