"""The section `track` names the trackers that follow a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, model_validator

from softprompt.config.sections.base import Name, Section


class TrackerConfig(Section):
    """The runs of a tracker have a place and a name; other keys are given to the tracker's own library."""

    model_config = ConfigDict(extra="allow")
    project: Name | None = None  # None: softprompt
    name: Name | None = None  # of the run; None: the output folder's
    group: Name | None = None
    dir: Name | None = None  # where files are written

    def options(self) -> dict[str, Any]:
        """Return a copy of the library's own options, as written."""
        return dict(self.model_extra or {})


class TrackConfig(Section):
    """Each tracker has a section of its name. Trackers change no run, and are in no fingerprint."""

    tensorboard: TrackerConfig | None = None
    trackio: TrackerConfig | None = None
    wandb: TrackerConfig | None = None
    mlflow: TrackerConfig | None = None
    aim: TrackerConfig | None = None
    clearml: TrackerConfig | None = None
    comet_ml: TrackerConfig | None = None
    dvclive: TrackerConfig | None = None
    swanlab: TrackerConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, given: Any) -> Any:
        return track_section(given)

    def chosen(self) -> dict[str, TrackerConfig]:
        """Return the trackers that are set, by name."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


def track_section(given: Any) -> Any:
    """Expand `track: wandb`, `track: [tensorboard, {wandb: {project: mood}}]` and `track: {wandb: null}`."""
    if given is None or given is False:
        return {}
    if isinstance(given, str):
        names = [name.strip() for name in given.split(",")]
        return {name: {} for name in names if name not in ("", "none", "off")}
    if isinstance(given, (list, tuple)) and all(isinstance(item, str | Mapping) for item in given):
        return {name: options for item in given for name, options in track_section(item).items()}
    if isinstance(given, Mapping):
        expanded = {name: {} if value is None or value is True else value for name, value in given.items()}
        return {name: value for name, value in expanded.items() if value is not False}
    return given
