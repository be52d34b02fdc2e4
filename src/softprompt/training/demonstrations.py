"""The demonstrations that a prefix starts as are chosen among the training rows (`init: demonstrations`).

They are the rows that a few-shot prompt shows, in its order: as many whole ones as `method.length` and the
model's context hold. A training row that is one of them is marked, so that leave-one-out can hide it from
itself; all other rows see all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .._system.notes import note
from ..config.schema import Recipe
from ..data.demonstrations import Demonstrations, demonstrations
from ..data.encode import Encoder
from ..data.example import Example
from ..data.fewshot import in_order
from ..errors import SoftPromptError
from ..lm.base import LanguageModel

INIT = "demonstrations"


def starts_with_demonstrations(recipe: Recipe) -> bool:
    """Return whether the method's vectors start as demonstrations."""
    return recipe.method.options().get("init") == INIT


def continuing(recipe: Recipe) -> Recipe:
    """Return the recipe as a run with demonstrations needs it: ahead of the input, which continues them."""
    if not starts_with_demonstrations(recipe):
        return recipe
    if recipe.data.prompt_field is not None and not recipe.train.apart:
        raise SoftPromptError(
            "init=demonstrations takes one prompt, and data.prompt_field names several",
            why="the demonstrations of each have a length of their own, and a table of prompts has one",
            fix="train.apart=true, which tunes each prompt for itself; or leave data.prompt_field out",
        )
    if recipe.task.objective == "distil":
        raise SoftPromptError(
            "init=demonstrations cannot be combined with task.objective=distil",
            why="a distillation starts from its text, and demonstrations are trained on their targets",
            fix="task.objective=targets; or method.init=context",
        )
    placement = recipe.method.options().get("placement", "before")
    method = recipe.method.model_copy(update={"placement": placement})
    template = recipe.template.model_copy(update={"continues": True})
    return recipe.model_copy(update={"method": method, "template": template})


def chosen(
    recipe: Recipe,
    lm: LanguageModel,
    encoder: Encoder,
    train: Sequence[Example],
    dev: Sequence[Example],
    first: int | None = None,
) -> tuple[Recipe, list[Example], Demonstrations]:
    """Choose the demonstrations; return them, the recipe with their length, and the marked training rows.

    They are among the `first` training rows, by default all. Raises SoftPromptError where not one fits, and
    where the model cannot read them as a prefix.
    """
    _check(lm, encoder)
    pool = in_order([example.rendered for example in train[:first]], encoder.kind, recipe.train.seed)
    turns = list({encoder.shorten(row.input): row.target for row in reversed(pool)}.items())[::-1]
    whole = demonstrations(encoder, turns)
    limit, why = _most(recipe, lm, encoder, [*train, *dev])
    count = sum(end <= limit for _, end in whole.spans)
    if not count:
        first = whole.spans[0][1] if whole.spans else 0
        raise SoftPromptError(
            f"no demonstration fits: the first takes {first} tokens, of {limit}",
            why=why,
            fix=f"shorter rows (data.max_input_tokens), or method.length={first} where that is the limit",
        )
    if count < len(turns):
        note(
            f"{count} of {len(turns)} rows are demonstrations, as many as {limit} tokens hold "
            f"({why}); the others are trained on"
        )
    numbers = {text: i for i, (text, _) in enumerate(turns[:count])}
    train = [replace(e, demonstration=numbers.get(encoder.shorten(e.rendered.input))) for e in train]
    result = whole if count == len(turns) else demonstrations(encoder, turns[:count])
    method = recipe.method.model_copy(update={"length": len(result.ids)})
    return recipe.model_copy(update={"method": method}), train, result


def _most(
    recipe: Recipe, lm: LanguageModel, encoder: Encoder, examples: Sequence[Example]
) -> tuple[int, str]:
    """Return how many tokens the demonstrations may take, and why."""
    new = encoder.limits.room.new_tokens
    row = max(
        len(e.input_ids) + max(new, len(e.target_ids), *map(len, e.candidates or ((),))) for e in examples
    )
    limit = lm.spec.context - row
    why = f"the model's context is {lm.spec.context} tokens, and a row with its answer takes up to {row}"
    length = recipe.method.options().get("length")
    return (length, f"method.length={length}") if length is not None and length < limit else (limit, why)


def _check(lm: LanguageModel, encoder: Encoder) -> None:
    lm.refuse("prefix")
    if lm.spec.kind != "decoder" or encoder.model.answers != "next" or encoder.kind == "preference":
        raise SoftPromptError(
            "init=demonstrations is not possible here",
            why="a preference task has no demonstrations"
            if encoder.kind == "preference"
            else "the model does not continue a text, so that it reads no demonstrations",
            fix="method.init=context method.leave_one_out=false",
        )
    if lm.spec.positions == "absolute":
        note(
            "this model counts positions from 0 at the input, behind a prefix too: the start is near the "
            "few-shot prompt and not equal to it"
        )
