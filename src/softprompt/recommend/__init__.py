"""Which method for these rows, this model and these limits: ranked by what is known, then by a pilot.

needs.py        what the user says, and what is measured on the rows and the model
contestants.py  what there is to choose from
rules.py        what is known, each rule (rule.py) with its evidence: exclusions.py, outcomes.py, demands.py
costs.py        bytes and seconds, from sizes alone
rank.py         the contestants in order, with reasons for and against; who is out, and why
recipes.py      recipes ready to run for the first of them
pilot.py        successive halving over short runs, within a time; what a run is, is its caller's
playing.py      those runs: trials of a comparison, with as many steps as the time allows all of them
trying.py       a pilot from rows and a ranking
guess.py        rows without a recipe: which fields are input and target
start.py        a first comparison of such rows; budget.py: what it takes, and what is cut
"""

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
