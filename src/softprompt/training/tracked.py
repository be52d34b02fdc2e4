"""Training runs are tracked: their steps and results become plain values for `softprompt.tracking`."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, final

import yaml

from .._system.version import version
from ..artifacts import manifest as manifests
from ..config.schema import Recipe
from ..errors import SoftPromptError
from ..tracking.base import Status, Subject
from ..tracking.registry import check
from ..tracking.session import Session
from ..tracking.values import cleaned, flat
from . import decisive
from .loop import Event
from .prepare import Prepared
from .run import Interrupted, Run


@final
class Tracking:
    """The sessions of runs, by the runs' numbers; of several processes, only the first has any."""

    def __init__(self, runs: Sequence[Prepared]) -> None:
        self._runs, self.sessions = runs, dict[int, Session]()
        self._seconds = dict[int, float]()

    def begin(self, steps: Mapping[int, int]) -> None:
        """Continue each run after its step, 0 for a new one."""
        for i, step in steps.items():
            started = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
            recipe = cleaned(self._runs[i].recipe.recorded().to_dict())
            if (session := self.sessions.get(i)) is None:
                continue
            before = [line for line in session.journal.steps if line["step"] <= step]
            self._seconds[i] = before[-1].get("seconds") or 0.0 if before else 0.0
            session.begin({"started": started, "recipe": recipe}, step)

    def step(self, event: Event) -> None:
        """Write a step that a run took. Tokens are those of its rows: inputs and targets, without padding."""
        i, run = event.learner, self._runs[event.learner]
        examples, general = run.train, () if run.keep is None else run.keep.examples
        if i not in self.sessions:
            return
        # rows that are read with other prompts each time are numbered on (`together.expanded`)
        rows = [examples[row % len(examples)] if row >= 0 else general[-1 - row] for row in event.rows]
        tokens = sum(len(e.input_ids) + e.answer_tokens for e in rows)
        self._seconds[i] += event.seconds
        line: dict[str, Any] = {
            "step": event.step,
            "loss": event.loss,
            "lr": event.lr,
            "tokens_per_second": tokens / event.seconds if event.seconds else None,
            "seconds": self._seconds[i],
        }
        if event.dev is not None:
            line["dev"] = dict(event.dev.metrics) or {event.dev.name: event.dev.shown}
        self.sessions[i].step(line)

    def end(self, i: int, run: Run) -> None:
        """Write the result of a run."""
        if i not in self.sessions:
            return
        outcome, path = run.outcome, run.artifact.path
        dev, plain = ({n: s.value for n, s in part.metrics.items()} for part in (run.dev, run.plain))
        digest = manifests.read(path / manifests.MANIFEST)["digest"]
        result = {
            "stopped": outcome.stopped,
            "best_step": outcome.best_step,
            "dev": dev,
            "plain": plain,
            "artifact": str(path),
            "digest": digest,
        }
        scores = {f"best/{name}": value for name, value in dev.items()}
        scores |= {f"plain/{name}": value for name, value in plain.items()}
        scores |= {"best/step": outcome.best_step, "total/steps": outcome.step}
        scores |= {"total/seconds": outcome.seconds}
        facts = {"stopped": outcome.stopped, "artifact": str(path), "artifact_digest": digest}
        status: Status = "failed" if outcome.stopped == "nan" else "finished"
        self.sessions[i].end(result, scores, facts, status)


def check_objects(objects: Sequence[Any], runs: int) -> None:
    """Raise SoftPromptError where tracker objects would follow several runs."""
    if objects and runs > 1:
        raise SoftPromptError(
            "a tracker object cannot follow several runs",
            why=f"an object is one run of a tracker, and there are {runs} runs",
            fix="name the tracker instead, as in track='tensorboard'",
        )


@contextlib.contextmanager
def tracked(
    runs: Sequence[Prepared], anew: Mapping[int, bool], objects: Sequence[Any] = ()
) -> Iterator[Tracking]:
    """Track the runs that `anew` names, and say of each whether it gives up what an earlier run left.

    Their trackers start at once, before anything is removed or trained. Raises SoftPromptError where one
    cannot start.
    """
    tracking, status = Tracking(runs), "failed"
    check_objects(objects, len(runs))

    def start() -> None:
        for i in anew:
            recipe = runs[i].recipe
            check(recipe.track, objects)
            text = json.dumps(runs[i].identity(), sort_keys=True, ensure_ascii=False)
            run = hashlib.sha256(text.encode()).hexdigest()
            subject = subject_of(recipe, is_one_of_many=len(runs) > 1)
            tracking.sessions[i] = Session(subject, recipe.track, run, anew=anew[i], objects=objects)

    try:
        runs[0].world.first(start)
        yield tracking
    except (Interrupted, KeyboardInterrupt):
        status = "interrupted"
        raise
    finally:
        for session in tracking.sessions.values():
            session.stop(status)


def subject_of(recipe: Recipe, *, is_one_of_many: bool) -> Subject:
    """Describe a run for trackers. Runs of a search are a group, which has the name of their folder."""
    folder = Path(recipe.output)
    content = cleaned(recipe.recorded().to_dict())
    content.pop("compare", None)
    params = flat(content) | {f"train.{key}": value for key, value in _filled_in(recipe).items()}
    return Subject(
        folder,
        folder.name,
        params,
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True),
        {"softprompt": version()},
        folder.parent.name or None if is_one_of_many else None,
        is_one_of_many,
    )


def _filled_in(recipe: Recipe) -> dict[str, float | int]:
    """Return settings whose default depends on the method, or on others."""
    numbers = decisive.optimization(recipe)
    return {"lr": numbers.lr, "eval_every": numbers.steps_between_evaluations}
