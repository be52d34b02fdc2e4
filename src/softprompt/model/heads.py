"""A classification head that no checkpoint brought has random weights: it is trained with the prompt."""

from __future__ import annotations

from typing import Any

import torch

from ..data.spelling import distinct
from ..errors import SoftPromptError
from ..lm import heads, in_memory
from ..lm.base import LanguageModel
from ..lm.library_internals import unread_parameters


def is_fresh(base: Any) -> bool:
    """Return whether the model has a head that no checkpoint brought.

    Either a part of it was not read from the checkpoint, which lacks it or has it in another size
    (`ignore_mismatched_sizes`), or the checkpoint does not name the head's class among its architectures.
    """
    if in_memory.head_of(base) is None:
        return False
    unread = unread_parameters(base)
    saved = getattr(base.config, "architectures", None) or ()
    return bool(unread & heads.parameter_names(base, unread)) or type(base).__name__ not in saved


def task(base: Any) -> tuple[dict[str, Any], list[str] | None]:
    """Return the task that a recipe gives the model's head, and its labels.

    Both are empty for a model without a head, and for outputs that no task reads (several labels a row).
    """
    head = in_memory.head_of(base)
    kind = getattr(base.config, "problem_type", None)
    if head is None or kind == "multi_label_classification":
        return {}, None
    if head.over == "sequence" and (head.size == 1 or kind == "regression"):
        return ({"kind": "regression"}, None) if head.size == 1 else ({}, None)
    names = [str(base.config.id2label[number]) for number in range(head.size)]
    if head.size < 2 or len(distinct(names)) < head.size or not all(names):
        return {}, None
    if head.over == "tokens":
        return {"kind": "token-classification", "labels": names}, names
    return {"kind": "classification", "head": True, "labels": names}, names


def train(base: Any, lm: LanguageModel) -> None:
    """Let the head be trained, where it is a part that training changes.

    Raises SoftPromptError for a head whose weights are not float32.
    """
    head = {name: p for name, p in base.named_parameters() if name in lm.head_names}
    odd = next((p.dtype for p in head.values() if p.dtype != torch.float32), None)
    if odd is not None:
        raise SoftPromptError(
            f"the head of {type(base).__name__} would be trained in {str(odd).removeprefix('torch.')}",
            why="the checkpoint did not bring it, and small updates vanish in less than float32",
            fix="load the model with dtype=torch.float32",
        )
    for parameter in head.values():
        parameter.requires_grad_(True)
