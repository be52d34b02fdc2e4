"""Each name in `compare.methods` becomes a candidate, with a recipe.

prompt-tuning/after      a method of the registry, and the placement of its vectors
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


@dataclass(frozen=True)
class Candidate:
    """A candidate is one way to do the task; `recipe` has its settings before the search."""

    name: str
    recipe: Recipe
    rates: tuple[float, ...] = ()
    is_reference: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)  # of a reference, as `study.json` shows them

    @property
    def trains_base(self) -> bool:
        """Return whether training changes the model itself, so that no other trial can share it."""
        return self.recipe.base.mode != "frozen" or self.recipe.task.needs_head

    @property
    def rate(self) -> str:
        """Return the learning rate that is searched: the prompt's or, without a prompt, the base's."""
        return "base.lr" if self.recipe.method.name == "none" else "train.lr"

    @property
    def length(self) -> str | None:
        """Return the setting for the number of vectors, or LoRA's rank; None if there is no such setting."""
        if "length" in methods.find(self.recipe.method.name).options():
            return "method.length"
        return "base.rank" if self.recipe.base.mode == "lora" else None

    @property
    def has_init(self) -> bool:
        """Return whether the initial vectors can be chosen."""
        return methods.find(self.recipe.method.name).has_init

    def with_settings(self, settings: Mapping[str, Any], **more: Any) -> Recipe:
        """Return its recipe with the searched settings, by dotted name."""
        return self.recipe.with_settings({**settings, **more}, method_option_names=methods.option_names())

    def describe(self) -> dict[str, Any]:
        """Return what `study.json` says of it."""
        return {
            "name": self.name,
            "method": self.name if self.is_reference else self.recipe.method.name,
            "options": dict(self.options) if self.is_reference else self.recipe.method.options(),
            "base": self.recipe.base.mode,
            "is_reference": self.is_reference,
        }


def candidates_of(recipe: Recipe) -> list[Candidate]:
    """Return the candidates that the recipe names, or the default ones.

    Raises SoftPromptError for an unknown one, and for options that its method does not have.
    """
    named = recipe.compare.methods
    if named is None:
        named = [name for name in DEFAULT if fits(name, recipe)]
    given = {name: {} for name in named} if isinstance(named, list) else named
    if not given:
        raise SoftPromptError("compare.methods names none", fix=f"name some: {', '.join(DEFAULT)}")
    candidates = [_candidate(name, recipe, changes or {}) for name, changes in given.items()]
    for candidate in candidates:
        methods.check_options(candidate.recipe.method.name, candidate.recipe.method.options())
    return candidates


def fits(name: str, recipe: Recipe) -> bool:
    """Return whether a default candidate can do the task with this form of the weights.

    A reference cannot answer by a trained head, preferences are measured against the plain model itself, and
    int8 weights are not trained.
    """
    if name in BASES and recipe.train.weights == "int8":
        return False
    if recipe.task.kind in ("preference", "embedding") and name == "few-shot":
        return False
    return not (recipe.task.needs_head and name in REFERENCES)


def _candidate(name: str, recipe: Recipe, changes: Mapping[str, Any]) -> Candidate:
    changes = dict(changes)
    rates = changes.pop("rates", None)  # a key of the comparison, not of the recipe
    if name in REFERENCES and not changes.keys() & {"method", "method.name"}:
        return _reference(name, recipe, changes)
    kind = changes.pop("method", None) or name
    plain = recipe.to_dict()
    if kind in BASES:
        plain["method"], plain["base"]["mode"] = {"name": "none"}, kind
        plain["base"]["lr"] = None
    else:
        method, _, placement = str(kind).partition("/")
        if method not in methods.METHODS or method == "none" or (placement and placement not in PLACEMENTS):
            raise _unknown(str(kind))
        plain["method"] = {"name": method, **_kept(recipe, method)}
        if placement:
            plain["method"]["placement"] = placement
    # with the changes and not before them: they may name the only form of the weights that it can train
    weights = plain["train"].pop("weights", None)
    changes = changes if weights is None else {"train.weights": weights, **changes}
    start = recipe_from_dict(plain).with_settings(changes, method_option_names=methods.option_names())
    if rates is None:
        rates = recipe.compare.base_rates if start.method.name == "none" else recipe.compare.rates
    return Candidate(name, start, tuple(rates))


def _reference(name: str, recipe: Recipe, changes: Mapping[str, Any]) -> Candidate:
    plain = recipe.to_dict() | {"method": {"name": "none"}, "base": {"mode": "frozen"}}
    shots = int(changes.get("shots", recipe.compare.shots)) if name == "few-shot" else 0
    options = {"shots": shots} if name == "few-shot" else {}
    return Candidate(name, recipe_from_dict(plain), is_reference=True, options=options)


def _kept(recipe: Recipe, method: str) -> dict[str, Any]:
    """Return the recipe's options that another method takes over: all of the same method, else length."""
    options = recipe.method.options()
    if method == recipe.method.name:
        return options
    known = methods.find(method).options()
    return {key: options[key] for key in ("length",) if key in options and key in known}


def _unknown(name: str) -> SoftPromptError:
    known = [f"{method}/{where}" for method in methods.METHODS if method != "none" for where in PLACEMENTS]
    return unknown(
        "contestant",
        name,
        [*known, *(m for m in methods.METHODS if m != "none"), *BASES, *REFERENCES],
        fix="or say which method a name of your own is: `my name: {method: prefix-tuning, length: 4}`",
    )
