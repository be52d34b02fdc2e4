"""A tracker has this interface, and receives a run as plain values."""

from __future__ import annotations

import abc
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..config.sections.track import TrackerConfig
from ..errors import SoftPromptError
from .values import Scalar

Status = Literal["finished", "interrupted", "failed"]
PROJECT = "softprompt"


@dataclass(frozen=True)
class Subject:
    """A subject is what is tracked, as plain values: one training run, or one trial of a comparison."""

    folder: Path  # the output folder
    name: str
    params: Mapping[str, Scalar]  # the recipe, flat
    recipe: str  # as YAML
    tags: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    is_one_of_many: bool = False  # runs of a search or a comparison share one `name` and one `dir`


class Tracker(abc.ABC):
    """A tracker writes one run. All calls come from one thread; an error ends the tracking, not the run."""

    package: ClassVar[str]  # that pip installs
    module: ClassVar[str]  # that is imported
    takes_dir: ClassVar[str] = ""  # why `dir` is refused; empty where it is taken

    def __init__(self, config: TrackerConfig, subject: Subject) -> None:
        self.config, self.subject = config, subject
        #: The last step that a resumed run has; None where the tracker does not tell.
        self.last_step: int | None = None
        self.project = config.project or PROJECT
        self.group = config.group or subject.group
        self.name = config.name or subject.name
        if config.name and subject.is_one_of_many:
            self.name = f"{config.name}-{subject.name}"

    @classmethod
    def check(cls, name: str, config: TrackerConfig) -> None:
        """Raise SoftPromptError where the library is missing, or a login that it needs."""
        if config.dir is not None and cls.takes_dir:
            raise SoftPromptError(f"track.{name}.dir cannot be used", why=cls.takes_dir, fix="remove it")
        missing(name, cls.module, cls.package)

    @abc.abstractmethod
    def start(self, id: str | None) -> str | None:
        """Begin a run, or resume the one of this `id`; return the id to resume it by, or None."""

    @abc.abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers of a step."""

    @abc.abstractmethod
    def end(self, scores: Mapping[str, float], facts: Mapping[str, str], step: int, status: Status) -> None:
        """Log the final scores and facts (empty where the run did not finish), and end the run."""

    def table(self, name: str, columns: list[str], rows: list[list[Any]], text: str) -> None:
        """Log a table, whose Markdown is `text`, where the tracker has tables or texts."""
        return None

    @property
    def where(self) -> str:
        """Say, for the user, where the run is."""
        return f"project {self.project}, run {self.name}"


def missing(name: str, module: str, package: str) -> None:
    """Raise SoftPromptError where a tracker's library is not installed."""
    try:
        is_there = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        is_there = False
    if not is_there:
        raise SoftPromptError(
            f"track: {name} needs the package {package}", "it is not installed", f"pip install '{package}'"
        )
