"""trackio keeps a run in $TRACKIO_DIR, or in a Space or on a server that its options name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from .base import Status, Tracker


@final
class Trackio(Tracker):
    """Writes metrics, the recipe as the run's config, and facts as texts of the last step."""

    package, module = "trackio", "trackio"
    takes_dir = "trackio keeps its runs in the folder that the environment variable TRACKIO_DIR names"

    def start(self, id: str | None) -> str | None:
        import trackio

        self.name = id or self.name
        self._run = trackio.init(
            **{
                "project": self.project,
                "name": self.name,
                "group": self.group,
                "config": {**self.subject.params, **self.subject.tags, "recipe": self.subject.recipe},
                "resume": "allow" if id else "never",
                "embed": False,
                **self.config.options(),
            }
        )
        if id and isinstance(after := getattr(self._run, "_next_step", None), int):
            self.last_step = after - 1  # a killed run may have lost values that waited to be written
        return self.name

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def end(self, scores: Mapping[str, float], facts: Mapping[str, str], step: int, status: Status) -> None:
        if scores or facts:
            self._run.log({**scores, **facts}, step=step)
        self._run.finish()

    def table(self, name: str, columns: list[str], rows: list[list[Any]], text: str) -> None:
        import pandas
        import trackio

        self._run.log({name: trackio.Table(dataframe=pandas.DataFrame(rows, columns=columns))})
