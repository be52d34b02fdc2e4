"""`init=matched` starts a prefix from a text and from the rows whose queries decide (see `matching`).

The text is that of the distillation's teacher, else the option `text`, else the training rows themselves.
The queries are those of training rows, requests with their answers. Without rows, the text is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..errors import SoftPromptError
from ..injection import Layers
from .base import Setting
from .matching import match

MOST_TOKENS = 1024  # of training rows that stand in for a text
INSTEAD = "method.init=context"


def matched(setting: Setting, index: int, length: int, text: str | None, keep_first: bool) -> Layers:
    """Return the columns of prompt `index` by layer, [1, kv_heads, length, head_dim].

    Raises SoftPromptError where there is no text, or one shorter than the prefix, and for a model whose
    attention cannot be matched.
    """
    rows = setting.rows_by_prompt.get(index) or setting.rows_by_prompt.get(0) or ()
    ids, behind = _text_and_rows(setting, index, rows, text)
    if length > len(ids):
        raise SoftPromptError(
            f"init=matched cannot make {length} vectors of a text of {len(ids)} tokens",
            why="it chooses among the keys of the text, of which there are as many as tokens",
            fix=f"method.length={len(ids)} or less; or {INSTEAD}",
        )
    if not rows:
        rows = behind = [ids]
    if len(ids) + max(map(len, behind)) > setting.lm.spec.context:
        raise SoftPromptError(
            "init=matched needs a text that the model reads together with a row",
            why=f"{len(ids):,} tokens and a row are more than its context of {setting.lm.spec.context:,}",
            fix=INSTEAD,
        )
    fit = partial(match, length=length, keep_first=keep_first)
    lm: Any = setting.lm
    return lm.fit_prefix(ids, behind, rows, length, lambda _, queries, kv: fit(queries, kv), setting.seed)


def check(placement: str) -> None:
    """Raise SoftPromptError for a placement where no text comes ahead of the input."""
    if placement != "before":
        raise SoftPromptError(
            f"init=matched cannot be combined with placement={placement}",
            why="the text whose attention is matched comes ahead of the input",
            fix=f"method.placement=before, or {INSTEAD}",
        )


def _text_and_rows(
    setting: Setting, index: int, rows: Sequence[Sequence[int]], text: str | None
) -> tuple[Sequence[int], Sequence[Sequence[int]]]:
    """Return the ids of the text, and the rows as they follow it."""
    if replaced := setting.replaced.get(index):
        return replaced, rests(replaced, rows)
    if text:
        return setting.lm.text_ids(text), rows
    if not rows:
        raise SoftPromptError(
            "init=matched needs a text",
            why="no teacher, option or training row gives one",
            fix="add method.text='…', or use method.init=vocab",
        )
    return [i for row in rows for i in row][: min(MOST_TOKENS, setting.lm.spec.context // 2)], rows


def rests(replaced: Sequence[int], rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Return what follows the text in each row of the teacher.

    The text ends with what all inputs begin with, such as the marks of a user's turn. The rows' own beginning
    ends with the same tokens, and may hold others ahead of them, such as a chat template's usual system text.
    """
    if not rows:
        return []
    common = 0
    while all(common < len(row) - 1 and row[common] == rows[0][common] for row in rows):
        common += 1
    ends = [_same_end(replaced, rows[0][:cut]) for cut in range(common + 1)]
    cut = ends.index(max(ends))
    return [row[cut:] for row in rows]


def _same_end(first: Sequence[int], second: Sequence[int]) -> int:
    same = 0
    while same < min(len(first), len(second)) and first[-1 - same] == second[-1 - same]:
        same += 1
    return same
