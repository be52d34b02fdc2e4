"""A run is what findings read, and a finding what they return. This module computes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol


class Text(Protocol):
    """A rendered row has these texts; `data.template.Rendered` is one."""

    @property
    def input(self) -> str: ...

    @property
    def target(self) -> str: ...

    @property
    def prompt(self) -> str | None: ...


class Encoded(Protocol):
    """An encoded row has these values; `data.example.Example` is one."""

    @property
    def rendered(self) -> Text: ...

    @property
    def target_ids(self) -> Sequence[int]: ...

    @property
    def truncated(self) -> int: ...


class Answered(Protocol):
    """An answered row has these texts; `records.Record` is one."""

    @property
    def prediction(self) -> str: ...

    @property
    def references(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Finding:
    """A finding has a level, a summary, the figures that show it, and the command that fixes it.

    `splits` are the held-out rows that, by this finding, cannot measure quality.
    """

    level: Literal["warning", "note"]
    summary: str
    evidence: str
    command: str = ""
    splits: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields by the keys that `softprompt inspect --json` prints."""
        fields = asdict(self)
        return {"level": fields.pop("level"), "what": fields.pop("summary"), **fields}

    def __str__(self) -> str:
        lines = [f"{self.level}: {self.summary}", f"  evidence: {self.evidence}"]
        return "\n".join([*lines, *([f"  fix: {self.command}"] if self.command else [])])


@dataclass(frozen=True)
class Run:
    """A finished run, of which the caller may have only a part."""

    manifest: Mapping[str, Any] = field(default_factory=dict)  # `softprompt.json`
    recipe: str = "RECIPE"  # the recipe's file, for commands to name
    given: Sequence[str] = ()  # the other arguments of the command: KEY=VALUE
    train: Sequence[Encoded] = ()
    dev: Sequence[Encoded] = ()
    test: Sequence[Encoded] = ()
    unseen: Sequence[Encoded] = ()  # test rows of kinds that training did not see
    records: Sequence[Answered] = ()  # of an evaluation (dev or test)
    used: Sequence[str] = ()  # inputs that the model received in use
    scores: Sequence[float] = ()  # of the rows of `records`, each row's share of the metric: higher is better
    baselines: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of the same rows
    searched: Sequence[tuple[float, float]] = ()  # (learning rate, dev score: higher is better)
    seeds: Mapping[str, Sequence[float]] = field(default_factory=dict)  # score of each seed, by candidate
    test_scores: Mapping[str, Any] = field(default_factory=dict)  # `Evaluation.to_json()` on the test rows
    higher_is_better: bool = True  # of `seeds`

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the recipe, as the manifest holds it."""
        return self.manifest.get("recipe", {})

    def setting(self, section: str, key: str, default: Any = None) -> Any:
        """Return one setting of the recipe."""
        return (self.settings.get(section) or {}).get(key, default)

    def tune(self, *overrides: str) -> str:
        """Return the command that trains it again as it was trained, but with these settings."""
        return " ".join(["softprompt tune", self.recipe, *self._kept(overrides), *overrides, "--overwrite"])

    def search(self, over: str) -> str:
        """Return the command that trains it with every value of one setting (`lr=1e-3,1e-2`)."""
        return " ".join(["softprompt search", self.recipe, *self._kept([over]), "--over", over])

    def _kept(self, changed: Sequence[str]) -> list[str]:
        """Quote for a shell the arguments that are not changed; `lr` and `train.lr` are one key."""
        keys = {_last(word) for word in changed}
        return [shlex.quote(word) for word in self.given if _last(word) not in keys]


def _last(override: str) -> str:
    return override.partition("=")[0].rpartition(".")[2]
