"""The pace of a method, as its steps and caches were timed, and the steps that were planned from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._system.progress import duration

FEWEST = 20  # steps; a method that takes fewer is noted


@dataclass(frozen=True)
class CachePace:
    """The seconds that a training input takes to be computed for a cache."""

    row_seconds: float
    folder: str | None = None  # None: in memory, where each job builds its own


@dataclass(frozen=True)
class Pace:
    """The measured seconds of a method: of the steps of its trainings, and of the caches that they read."""

    step: float  # of a training that runs alone
    search: float  # one step of every trial of the search
    caches: tuple[CachePace, ...] = ()
    rows: int = 0  # different training inputs
    batch: int = 1  # rows a step
    evaluation: float = 0.0  # the dev rows scored once; 0 where it was not timed


@dataclass(frozen=True)
class Stage:
    """A stage has the trials of a search that run in one job: these recipes, each so many times."""

    recipes: tuple[dict[str, Any], ...]
    times: int = 1


@dataclass(frozen=True)
class Share:
    """A share is the plan of one method: its steps, and the seconds that they take at the measured pace."""

    steps: int  # of every trial of its search, and of every final
    seconds: float  # planned, in all
    cache_seconds: float  # of these, for caches
    disk_seconds: float  # of these, for its part of the caches on disk
    pace: Pace
    method: str


@dataclass(frozen=True)
class Timed:
    """The plan of a comparison at equal time, and the methods whose pace could not be measured."""

    budget: float
    shares: dict[str, Share]
    failed: dict[str, str]

    @property
    def notes(self) -> list[str]:
        """Return what a user should know about the plan."""
        few = {name: share.steps for name, share in self.shares.items() if share.steps < FEWEST}
        notes = [f"{name}: its pace could not be measured ({why})" for name, why in self.failed.items()]
        if few:
            shown = ", ".join(f"{name} {steps}" for name, steps in few.items())
            notes.append(f"few steps fit into the budget of {duration(self.budget)}: {shown}")
        return notes
