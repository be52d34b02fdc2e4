"""MLflow keeps a run in the store that `uri` names, else in its own ($MLFLOW_TRACKING_URI).

It is written through a client and not through MLflow's active run, which belongs to the user's own code.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from .._system.secrets import without_secrets
from .base import Status, Tracker

_ENDS: dict[Status, str] = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
LONGEST = 500  # characters of a parameter, which every version takes
AT_ONCE = 100  # parameters in a request


@final
class MLflow(Tracker):
    """Writes metrics, the recipe as parameters and as `recipe.yaml`, and facts as tags."""

    package, module = "mlflow", "mlflow"

    def start(self, id: str | None) -> str | None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        for name in ("mlflow.store.db.utils", "alembic.runtime.migration"):  # lines about a new database
            logging.getLogger(name).setLevel(logging.WARNING)
        options, folder, artifacts = self.config.options(), self.config.dir, None
        uri, more = options.pop("uri", None), options.pop("tags", {})
        if options:
            raise TypeError(f"unknown options: {', '.join(options)} (known: uri, tags)")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            uri, artifacts = uri or f"sqlite:///{folder}/mlflow.db", str(Path(folder, "artifacts").absolute())
        self._client = MlflowClient(tracking_uri=uri)
        if id is not None:
            self._id = self._client.get_run(id).info.run_id
            self._client.update_run(self._id, status="RUNNING")
            history = self._client.get_metric_history(self._id, "train/loss")
            self.last_step = max((point.step for point in history), default=0)
            return self._id
        experiment = self._client.get_experiment_by_name(self.project)
        number = (
            self._client.create_experiment(self.project, artifact_location=artifacts)
            if experiment is None
            else experiment.experiment_id
        )
        tags = {**self.subject.tags, **({"group": self.group} if self.group else {}), **more}
        self._id = self._client.create_run(number, run_name=self.name, tags=tags).info.run_id
        params = [Param(key, str(value)[:LONGEST]) for key, value in self.subject.params.items()]
        for first in range(0, len(params), AT_ONCE):
            self._client.log_batch(self._id, params=params[first : first + AT_ONCE])
        self._client.log_text(self._id, self.subject.recipe, "recipe.yaml")
        return self._id

    def log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_allowed(name), float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def end(self, scores: Mapping[str, float], facts: Mapping[str, str], step: int, status: Status) -> None:
        if scores:
            self.log(scores, step)
        for name, value in facts.items():
            self._client.set_tag(self._id, name, value)
        self._client.set_terminated(self._id, _ENDS[status])

    def table(self, name: str, columns: list[str], rows: list[list[Any]], text: str) -> None:
        self._client.log_text(self._id, text, f"{name}.md")

    @property
    def where(self) -> str:
        uri = without_secrets(self._client.tracking_uri)
        return f"experiment {self.project}, run {self.name}, in {uri}"


def _allowed(name: str) -> str:
    return re.sub(r"[^\w./ -]", "_", name)
