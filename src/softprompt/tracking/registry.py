"""Trackers are found by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ..config.sections.track import TrackConfig, TrackerConfig
from . import accelerate
from .base import Subject, Tracker
from .mlflow import MLflow
from .tensorboard import TensorBoard
from .trackio import Trackio
from .wandb import WandB

TRACKERS: dict[str, type[TensorBoard | Trackio | WandB | MLflow]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WandB,
    "mlflow": MLflow,
}


def check(track: TrackConfig, objects: Sequence[Any] = ()) -> None:
    """Raise SoftPromptError where a tracker's library or login is missing, or an object is no tracker."""
    for name, config in track.chosen().items():
        if name in TRACKERS:
            TRACKERS[name].check(name, config)
        else:
            accelerate.check(name)
    for item in objects:
        accelerate.check_object(item)


def separated(track: Any) -> tuple[list[Any], list[Any]]:
    """Separate what `tune(track=…)` was given into a recipe's part and tracker objects."""
    items = list(track) if isinstance(track, (list, tuple)) else [] if track is None else [track]
    plain = [item for item in items if isinstance(item, (str, Mapping, bool))]
    return plain, [item for item in items if not isinstance(item, (str, Mapping, bool))]


def makers(
    track: TrackConfig, subject: Subject, objects: Sequence[Any] = ()
) -> dict[str, Callable[[], Tracker]]:
    """Return functions that make the trackers of a run, by name; objects are named by their class."""
    trackers: dict[str, Callable[[], Tracker]] = {}
    for name, config in track.chosen().items():
        if name in TRACKERS:
            trackers[name] = partial(TRACKERS[name], config, subject)
        else:
            trackers[name] = partial(accelerate.AccelerateTracker, config, subject, name)
    for number, item in enumerate(objects, 1):
        name = f"{type(item).__name__} (object {number})"
        trackers[name] = partial(accelerate.AccelerateTracker, TrackerConfig(), subject, item)
    return trackers
