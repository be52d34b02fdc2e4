"""Convert a row's target to what a model is trained on: token ids, numbers of labels, or a number.

Some tasks also need the positions in the input at which a model answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from softprompt.data.answer_positions import mask_places, word_places
from softprompt.data.task import Task
from softprompt.data.template import Rendered
from softprompt.data.template_errors import same_answers
from softprompt.data.tokens import Ids, Tokens
from softprompt.errors import SoftPromptError

TEACHER = "teacher"  # the field that names the teacher of an answer


def target_ids(
    tokens: Tokens,
    task: Task,
    rendered: Rendered,
    candidates: tuple[Ids, ...] | None,
    labels: Sequence[str],
    most: int | None,
) -> tuple[Ids, int]:
    """Return (ids, tokens cut): at most `most` ids of a text, which end with the end token unless cut.

    An answer that its teacher did not end has no end token. For a head, the ids are the numbers of the label
    or tags. `Example.value` holds a number to predict.
    """
    if task.kind == "regression":
        return (0,), 0
    if task.kind == "token-classification":
        return tuple(labels.index(tag) for tag in rendered.tags), 0
    if candidates is not None:
        names = labels if task.kind == "classification" else rendered.choices or ()
        return candidates[names.index(rendered.target)], 0
    return _answer(tokens, rendered, rendered.target, most, ends=not was_cut(rendered.row))


def was_cut(row: Mapping[str, Any]) -> bool:
    """Return whether the row's target is a teacher's answer that was cut: the teacher did not end there.

    Rows of the user's own may have a field `complete` that means something else: they name no teacher.
    """
    return TEACHER in row and row.get("complete", True) is False


def rejected_ids(tokens: Tokens, rendered: Rendered, chosen: Ids, most: int | None) -> tuple[Ids, int]:
    """Return (ids, tokens cut) of a preference row's rejected answer; none for a row without one.

    Raises SoftPromptError where they are those of the chosen answer.
    """
    if not rendered.rejected:
        return (), 0
    ids, cut = _answer(tokens, rendered, rendered.rejected, most)
    if ids != chosen:
        return ids, cut
    if not cut:
        raise same_answers(rendered.row.where, rendered.rejected)
    raise SoftPromptError(
        f"{rendered.row.where}: the first {most} tokens of both answers are the same",
        why=f"data.max_target_tokens={most} cuts off where they differ",
        fix="raise data.max_target_tokens, or take the row out",
    )


def _answer(
    tokens: Tokens, rendered: Rendered, answer: str, most: int | None, *, ends: bool = True
) -> tuple[Ids, int]:
    """Return (ids, tokens cut) of a text that answers the input, with an end token where it `ends`."""
    ids = tokens.of_continuation(tokens.after(rendered.input, answer))
    if end := next((token for token in ids if token in tokens.end_ids), None):
        raise SoftPromptError(
            f"{rendered.row.where}: the target holds the end token "
            f"{tokens.tokenizer.convert_ids_to_tokens(end)!r} within its text",
            why="every answer ends there, so that what follows could never be read",
            fix="remove it from the row",
        )
    if not ids:
        raise SoftPromptError(
            f"{rendered.row.where}: the tokenizer gives no token for the target {answer!r}",
            why="it removes all of its characters",
            fix="write it in characters that the model knows, or use another model",
        )
    ids = (*ids, tokens.end()) if ends else ids
    kept = ids[:most] if most else ids
    return kept, len(ids) - len(kept)


def answer_places(
    tokens: Tokens, task: Task, rendered: Rendered, ids: Ids, lost: int, label_ids: tuple[Ids, ...] | None
) -> Ids:
    """Return the positions in `ids` at which an encoder answers; `lost` tokens were cut off the input."""
    where = rendered.row.where
    if tokens.model.answers == "mask":
        return mask_places(ids, tokens.tokenizer, label_ids or ((),), where)
    if task.kind != "token-classification":
        return ()
    if lost:
        raise SoftPromptError(
            f"{where}: {lost} tokens of the row do not fit",
            why="a tag cannot be read off a word that was cut off",
            fix="split the row, or raise data.max_input_tokens",
        )
    return word_places(tokens.tokenizer, rendered.words, where)


def target_value(rendered: Rendered) -> float:
    """Return the number that a regression row names."""
    try:
        value = float(rendered.target)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    raise SoftPromptError(
        f"{rendered.row.where}: target {rendered.target!r} is not a number",
        why="task.kind=regression predicts one number a row",
        fix="correct the row, or remove it (template.target may compute: {{ score | float / 5 }})",
    )
