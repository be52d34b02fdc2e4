"""This package says which method to try first: by evidence for rows, model and limits, then by a pilot."""

from typing import Any

from .._system.moved import renamed
from .candidates import CANDIDATES, MethodChoice
from .rank import Ranking, rank
from .requirements import Needs, Requirements, measure
from .rules.registry import RULES, Rule

__all__ = [
    "CANDIDATES",
    "RULES",
    "MethodChoice",
    "Needs",
    "Ranking",
    "Requirements",
    "Rule",
    "measure",
    "rank",
]

#: Names of the former `softprompt.choose`. They work for one more version, with a warning.
_RENAMED = {
    "CONTESTANTS": "candidates.CANDIDATES",
    "Contestant": "candidates.MethodChoice",
    "Pilot": "pilot.Pilot",
    "Said": "requirements.Requirements",  # codespell:ignore said
}


def __getattr__(name: str) -> Any:
    """Return what had this name before it was renamed."""
    return renamed(__name__, _RENAMED, name)
