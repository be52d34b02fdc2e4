"""Who takes part: names as a recipe's `compare.methods` has them, and the recipe that each amounts to.

prompt-tuning/after      a method of the registry, and where its vectors stand
lora, full               the base itself, trained
zero-shot, few-shot      the plain model: references, for which nothing is trained
tf-idf                   logistic regression on words, for classification: a reference without a model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import methods
from ..config.load import recipe_from_dict
from ..config.schema import Recipe
from ..errors import SoftPromptError, unknown

METHODS = (
    "prompt-tuning/before",
    "prompt-tuning/after",
    "prefix-tuning/before",
    "prefix-tuning/after",
    "generated-prefix/after",
    "p-tuning/after",
    "lora",
)
REFERENCES = ("zero-shot", "few-shot", "tf-idf")
DEFAULT = (*METHODS, "zero-shot", "few-shot")
BASES = ("lora", "full")
PLACEMENTS = ("before", "after")
OWN = ("rates",)  # keys of a contestant that are the comparison's, not the recipe's


@dataclass(frozen=True)
class Candidate:
    """One way of doing the task; `recipe` is its start, before anything is searched."""

    name: str
    recipe: Recipe
    rates: tuple[float, ...] = ()
    is_reference: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)  # as a reader should know it

    @property
    def trains_base(self) -> bool:
        """Whether the model itself changes, so that nothing else can share it."""
        return self.recipe.base.mode != "frozen" or self.recipe.task.needs_head

    @property
    def rate(self) -> str:
        """Which learning rate decides: the prompt's or, where there is none, the base's."""
        return "base.lr" if self.recipe.method.name == "none" else "train.lr"

    @property
    def length(self) -> str | None:
        """What says how many numbers are learned: vectors, or LoRA's rank; None where nothing does."""
        if "length" in methods.find(self.recipe.method.name).options():
            return "method.length"
        return "base.rank" if self.recipe.base.mode == "lora" else None

    @property
    def has_init(self) -> bool:
        """Whether it can start from one thing or another."""
        return "init" in methods.find(self.recipe.method.name).options()

    def with_settings(self, settings: Mapping[str, Any], **more: Any) -> Recipe:
        """Its recipe with what was searched, by dotted name."""
        return self.recipe.with_settings({**settings, **more}, method_option_names=methods.option_names())

    def describe(self) -> dict[str, Any]:
        """For `study.json`."""
        return {
            "name": self.name,
            "method": self.name if self.is_reference else self.recipe.method.name,
            "options": dict(self.options) if self.is_reference else self.recipe.method.options(),
            "base": self.recipe.base.mode,
            "is_reference": self.is_reference,
        }


def contestants(recipe: Recipe) -> list[Candidate]:
    """Those that the recipe names, or the usual ones. Raises SoftPromptError for one that cannot be."""
    named = recipe.compare.methods
    if named is None:
        named = [name for name in DEFAULT if _fits(name, recipe)]
    given = {name: {} for name in named} if isinstance(named, list) else named
    if not given:
        raise SoftPromptError("compare.methods names none", fix=f"name some: {', '.join(DEFAULT)}")
    found = [_contestant(name, recipe, changes or {}) for name, changes in given.items()]
    for one in found:
        methods.check_options(one.recipe.method.name, one.recipe.method.options())
    return found


def _contestant(name: str, recipe: Recipe, changes: Mapping[str, Any]) -> Candidate:
    changes = dict(changes)
    own = {key: changes.pop(key) for key in OWN if key in changes}
    if name in REFERENCES and not changes.keys() & {"method", "method.name"}:
        return _reference(name, recipe, changes)
    what = changes.pop("method", None) or name
    plain = recipe.to_dict()
    if what in BASES:
        plain["method"], plain["base"]["mode"] = {"name": "none"}, what
        plain["base"]["lr"] = None
    else:
        method, _, placement = str(what).partition("/")
        if method not in methods.METHODS or method == "none" or (placement and placement not in PLACEMENTS):
            raise _unknown(str(what))
        plain["method"] = {"name": method, **_kept(recipe, method)}
        if placement:
            plain["method"]["placement"] = placement
    start = recipe_from_dict(plain).with_settings(changes, method_option_names=methods.option_names())
    rates = recipe.compare.base_rates if start.method.name == "none" else recipe.compare.rates
    return Candidate(name, start, tuple(own.get("rates", rates)))


def _reference(name: str, recipe: Recipe, changes: Mapping[str, Any]) -> Candidate:
    plain = recipe.to_dict() | {"method": {"name": "none"}, "base": {"mode": "frozen"}}
    shots = int(changes.get("shots", recipe.compare.shots)) if name == "few-shot" else 0
    options = {"shots": shots} if name == "few-shot" else {}
    return Candidate(name, recipe_from_dict(plain), is_reference=True, options=options)


def _kept(recipe: Recipe, method: str) -> dict[str, Any]:
    """Options of the recipe's own method that hold for another one: all for the same, else its length."""
    options = recipe.method.options()
    if method == recipe.method.name:
        return options
    known = methods.find(method).options()
    return {key: options[key] for key in ("length",) if key in options and key in known}


def _fits(name: str, recipe: Recipe) -> bool:
    """Whether one of the usual contestants can do the task at all: a head is read off a row, not written."""
    return not (recipe.task.needs_head and name in REFERENCES)


def _unknown(name: str) -> SoftPromptError:
    known = [f"{method}/{where}" for method in methods.METHODS if method != "none" for where in PLACEMENTS]
    return unknown(
        "contestant",
        name,
        [*known, *(m for m in methods.METHODS if m != "none"), *BASES, *REFERENCES],
        fix="or give a name of your own what it is: `my name: {method: prefix-tuning, length: 4}`",
    )
