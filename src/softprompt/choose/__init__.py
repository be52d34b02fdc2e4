"""Which method for these rows, this model and these limits: ranked by what is known, then by a pilot.

    needs.py        what the user says, and what is measured on the rows and the model
    contestants.py  what there is to choose from
    rules.py        what is known, each rule (rule.py) with its evidence: exclusions.py, preferences.py
    costs.py        bytes and seconds, from sizes alone
    rank.py         the contestants in order, with reasons for and against; who is out, and why
    recipes.py      recipes ready to run for the first of them
    pilot.py        successive halving over short runs, within a time

Nothing here trains: a pilot is given a callable that runs one trial.
"""

from .contestants import CONTESTANTS, Contestant
from .needs import Needs, Said, measure
from .pilot import Pilot, pilot
from .rank import Ranking, rank
from .rules import RULES, Rule

__all__ = [
    "CONTESTANTS",
    "RULES",
    "Contestant",
    "Needs",
    "Pilot",
    "Ranking",
    "Rule",
    "Said",
    "measure",
    "pilot",
    "rank",
]
