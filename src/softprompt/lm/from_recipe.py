"""The base model of a recipe is loaded, or one that is loaded already is checked against the recipe."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.schema import Recipe
from ..errors import SoftPromptError
from .base import LanguageModel
from .heads import Head
from .loading import load
from .offloaded import devices


def load_base(recipe: Recipe, labels: Sequence[str] | None = None) -> LanguageModel:
    """Load the recipe's base model, with a head of the labels where it needs one.

    Weights that are trained, in full or in a head, are loaded in float32.
    """
    dtype, head = recipe.train.precision, head_of(recipe, labels)
    trained = (recipe.base.mode == "full" or recipe.task.needs_head) and dtype == "auto"
    settings = recipe.model.settings(token=True)
    name, quantization = settings.pop("id"), settings.pop("quantization", None)
    precision = "float32" if trained else dtype
    options = {"head": head, "quantization_config": quantization, "shard": recipe.train.shard}
    lm = load(name, dtype=precision, weights=recipe.train.weights, **options, **settings)
    if trained:
        lm.why_dtype = "weights are trained"
    return lm


def head_of(recipe: Recipe, labels: Sequence[str] | None) -> Head | None:
    """Return the head that gives the recipe's answers; None where the answers are words."""
    if recipe.task.kind == "embedding":
        return Head("pooling", pooling=recipe.task.pooling)
    if not recipe.task.needs_head:
        return None
    over = "tokens" if recipe.task.kind == "token-classification" else "sequence"
    return Head(over, 1 if recipe.task.kind == "regression" else len(labels or ()), recipe.train.seed)


def check_pooling(recipe: Recipe, lm: LanguageModel) -> None:
    """Raise SoftPromptError for a model that the caller loaded for something else than the task's vectors."""
    wanted, present = recipe.task.pooling, lm.head
    if present is None or present.over != "pooling":
        raise SoftPromptError(
            f"'{lm.name}' was not loaded for vectors of texts",
            why="it gives words or labels, and task.kind=embedding reads a vector of the whole text",
            fix='give its name or folder, or softprompt.load(NAME, head=softprompt.Head("pooling"))',
        )
    if wanted is not None and wanted != present.pooling:
        raise SoftPromptError(
            f"'{lm.name}' was loaded with another pooling than the task's",
            why=f"it pools by {present.pooling}, and task.pooling={wanted}",
            fix=f"task.pooling={present.pooling}, or load(…, head=Head('pooling', pooling='{wanted}'))",
        )


def check_weights(recipe: Recipe, lm: LanguageModel) -> None:
    """Raise SoftPromptError for a model that was loaded with other weights than the recipe's."""
    wanted = recipe.train.weights
    if wanted not in ("auto", lm.weights):
        raise SoftPromptError(
            f"train.weights={wanted} has no effect on '{lm.name}'",
            why=f"it is loaded already, with weights={lm.weights}",
            fix=f'softprompt.load(NAME, weights="{wanted}"), or give the name of the model',
        )


def check_one_device(lm: LanguageModel) -> None:
    """Raise SoftPromptError where a base's layers run on several devices: its prompt could not be trained."""
    if len(places := devices(lm.model)) > 1:
        raise SoftPromptError(
            f"'{lm.name}' runs on {len(places)} devices ({', '.join(places)}), where no prompt is trained",
            why="the vectors, and the keys and values of inputs that are kept, are on one device",
            fix='load it on one: device_map={"": 0}, with quantization_config where it is too large',
        )


def check_head(recipe: Recipe, labels: Sequence[str] | None, lm: LanguageModel) -> None:
    """Check that a model that the caller loaded has the head that the task needs, and no other."""
    wanted, present = head_of(recipe, labels), lm.head
    if wanted is None and present is None:
        return
    if recipe.task.kind == "embedding":
        check_pooling(recipe, lm)
        return
    if wanted is None:
        raise SoftPromptError(
            f"'{lm.name}' was loaded with a head, which the task does not read",
            why=f"task.kind={recipe.task.kind}, without task.head=true",
            fix="task.head=true, or load the model without head=",
        )
    if present is None or (wanted.over, wanted.size) != (present.over, present.size):
        raise SoftPromptError(
            f"'{lm.name}' was loaded without the head that the task needs",
            why=f"a head of {wanted.size} over the {wanted.over}",
            fix=f'load(…, head=Head("{wanted.over}", {wanted.size})), or give the name of the model',
        )
