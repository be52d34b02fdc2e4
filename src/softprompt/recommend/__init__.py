"""Which method to try first for these rows, this model and these limits: ranked by rules, then by a pilot."""

from .candidates import CONTESTANTS, MethodChoice
from .rank import Ranking, rank
from .requirements import Needs, Said, measure
from .rules.registry import RULES, Rule
from .successive_halving import Pilot, Scored, pilot

__all__ = [
    "CONTESTANTS",
    "RULES",
    "MethodChoice",
    "Needs",
    "Pilot",
    "Ranking",
    "Rule",
    "Said",
    "Scored",
    "measure",
    "pilot",
    "rank",
]
