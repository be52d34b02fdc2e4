"""This package says which method to try first: by evidence for rows, model and limits, then by a pilot."""

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
