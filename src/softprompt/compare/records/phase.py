"""The phases of a comparison are a table: what runs a trial of each, and what its record holds.

The functions are named rather than imported, so that reading a record loads no model code.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

PhaseName = Literal["reference", "search", "final", "curve", "score", "measure", "growth", "newcomer"]


@dataclass(frozen=True)
class Phase:
    """A phase of trials, which the function `runs` in `softprompt.compare.phases` runs."""

    title: str  # for the user, when the phase begins
    runs: str
    writes: tuple[str, ...]  # keys of a record, unless the trial failed
    is_training: bool = False  # `runs` takes several trials and `train.Options`, else one trial
    side_by_side: bool = False  # trials over the same frozen base train in one pass
    is_pruned: bool = False  # trials that are behind, or out of time, are stopped
    keeps_rows: bool = False  # the record has the scores of the dev rows
    keeps_prompt: bool = False  # the tuned prompt stays, and its costs are counted
    is_trial_line: bool = True  # `results.jsonl` has a line `trial` for each that did not fail

    def function(self) -> Callable[..., Any]:
        """Import the function that runs it."""
        return pkgutil.resolve_name(f"softprompt.compare.phases.{self.runs}")


_TRAINED = ("dev", "dev_key", "best_step", "steps", "history", "cost")
_SCORED = ("dev_key", "metrics", "calibration", "examples")

PHASES: dict[str, Phase] = {
    "reference": Phase("references", "score:score", _SCORED),
    "search": Phase(
        *("search", "train:train", _TRAINED),
        is_training=True,
        side_by_side=True,
        is_pruned=True,
        keeps_rows=True,
    ),
    "final": Phase("finals, with every seed", "train:train", _TRAINED, is_training=True, keeps_prompt=True),
    "curve": Phase("learning curves", "train:train", _TRAINED, is_training=True, side_by_side=True),
    "score": Phase("test and unseen rows", "score:score", _SCORED, is_trial_line=False),
    "measure": Phase("control and serving", "measure:measure", ("control", "serving"), is_trial_line=False),
    "growth": Phase("tables of more and more prompts", "prompt_tables:grow", ("examples",)),
    "newcomer": Phase("prompts never seen in training", "prompt_tables:add", ("examples",)),
}
