"""The vectors of a distillation start as the closed-form match of their text, where the model takes it.

Elsewhere they start as the keys and values of the text's first tokens. See `methods.matching`.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from functools import partial
from typing import Any

from .. import methods
from .._system.notes import note
from ..config.schema import Recipe
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..methods.matching import match
from ..training.teacher_encoder import TeacherEncoder
from .vectors import AUTO, lengths_for

MATCHED = "matched"
TRIED, READ = (
    512,
    32,
)  # tokens of the text that show whether the attention can be matched, and of a row behind


def with_start(recipe: Recipe, lm: LanguageModel, teachers: Sequence[TeacherEncoder]) -> Recipe:
    """Return the recipe with `init: matched` where it names no start and all texts can be matched.

    A note says so where the model's attention cannot be matched.
    """
    if not is_open(recipe):
        return recipe
    length = _options(recipe).get("length")
    if length is None:
        return recipe  # a package's method that counts its vectors otherwise
    longest = max(lengths_for(teachers[0].text_tokens)) if length == AUTO else length
    # templates drop the space around a text
    shortest = min(len(lm.text_ids(teacher.text.strip())) for teacher in teachers)
    if not all(teacher.is_whole for teacher in teachers) or longest > shortest:
        return recipe
    if why := refusal(lm, teachers[0].text):
        note(f"the vectors start as the text's first tokens (init: context): {why}")
        return recipe
    chosen = type(recipe.method)(name=recipe.method.name, **{**recipe.method.options(), "init": MATCHED})
    return recipe.model_copy(update={"method": chosen})


def is_open(recipe: Recipe) -> bool:
    """Return whether the recipe leaves the start open, and its method can start as a match."""
    known = typing.get_args(methods.find(recipe.method.name).hints().get("init"))
    given = recipe.method.options()
    return "init" not in given and MATCHED in known and _options(recipe).get("placement") == "before"


def _options(recipe: Recipe) -> dict[str, Any]:
    """Return the method's options, with the defaults of those that are not given."""
    defaults = {name: p.default for name, p in methods.find(recipe.method.name).options().items()}
    return defaults | recipe.method.options()


def refusal(lm: LanguageModel, text: str) -> str | None:
    """Return why the model's attention cannot be matched; None where it can."""
    ids = lm.text_ids(text)[:TRIED]
    fit = partial(match, length=1, keep_first=False)
    given: Any = lm
    try:
        given.fit_prefix(ids, [ids[:READ]], [ids[:READ]], 1, lambda _, queries, kv: fit(queries, kv))
    except SoftPromptError as error:
        return error.what
    return None
