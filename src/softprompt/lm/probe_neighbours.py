"""Measure on load whether a row's answer depends on its neighbours in a batch.

Rows of different lengths are answered in a padded batch and alone. Where the two differ, a batch without
padding is tried, then the same row twice. In float32 no difference beyond rounding is accepted. In bfloat16
single rows may differ by more, where rounding sends a token to other experts; padding that is read changes
most rows, so the middle one decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.collate import Batch, batch_of_ids
from ..errors import SoftPromptError
from .spec import Batching

LENGTHS = (20, 20, 12, 7, 1)  # tokens of the rows that are tried; the first two have the same input
TARGETS = (2, 2, 3, 2, 1)  # and of their targets, where an answer follows a row
TOLERANCE = {torch.float32: 1e-4}  # of the answer's largest number; other precisions round more
ROUNDED = 0.1


@torch.no_grad()
def measure(lm: Any) -> Batching:
    """Return which batches the model answers as it answers each row alone.

    Raises SoftPromptError where it answers one row in two ways, or where a causal model's answer depends on
    what follows.
    """
    batch, singles = _rows(lm)
    answers = lm.logits(batch)
    if lm.spec.kind == "decoder" and lm.head is None:
        _check_causal(lm, answers)
    alone = [lm.logits(single)[0, -1] for single in singles]
    if _alike(lm, [answers[-len(alone) + i, -1] for i in range(len(alone))], alone):
        return "any"
    row = singles[1]
    if not _alike(lm, [lm.logits(row)[0, -1] for _ in range(3)], [alone[1]] * 3):
        raise SoftPromptError(
            f"a {lm.spec.family} model gives one row two answers",
            why="the same tokens, run twice, got other logits (measured on load): it draws random numbers",
            fix="use another base model, or switch what it draws off in its config.json",
        )
    together = lm.logits(_repeated(lm, row))
    return "lengths" if _alike(lm, [together[0, -1]], [alone[1]]) else "one"


def _rows(lm: Any) -> tuple[Batch, list[Batch]]:
    """Return rows of `LENGTHS` in a batch, and each of the padded ones alone."""
    count = sum(LENGTHS)
    first = min(4, lm.spec.vocab_size - 1)  # special tokens come first
    ids = (torch.arange(count) * 7 % max(1, lm.spec.vocab_size - first) + first).tolist()
    width = max(1, min(max(LENGTHS), lm.spec.context - 4))
    inputs = [ids[sum(LENGTHS[:i]) :][: min(n, width)] for i, n in enumerate(LENGTHS)]
    inputs[1] = inputs[0]
    # the first two rows differ in the token fed ahead of the last answer, so not in the one before
    targets = [[ids[i + 1], ids[i]] for i in range(len(inputs))]
    if lm.answers == "next":
        targets = [[*row, ids[9]][-n:] for row, n in zip(targets, TARGETS, strict=True)]
    places = [[0, n - 1] if (n := len(row)) > 1 else [0, 0] for row in inputs]

    def batch_of(rows: Sequence[int]) -> Batch:
        ids, following, at = ([part[i] for i in rows] for part in (inputs, targets, places))
        return batch_of_ids(ids, following, places=at).to(lm.device)

    return batch_of(range(len(inputs))), [batch_of([i]) for i in range(2, len(inputs))]


def _repeated(lm: Any, row: Batch) -> Batch:
    """Return a batch without padding: the row, and another of its length."""
    other = row.input_ids.roll(1, 1)
    ids, targets = row.input_ids[0].tolist(), row.target_ids[0].tolist()
    places = None if row.places is None else [row.places[0].tolist()] * 2
    return batch_of_ids([ids, other[0].tolist()], [targets, targets], places=places).to(lm.device)


def _check_causal(lm: Any, answers: Tensor) -> None:
    """Check that the first two rows, which begin alike, answer alike there, whatever follows."""
    if not _alike(lm, [answers[0, -2]], [answers[1, -2]]):
        raise SoftPromptError(
            f"this {lm.spec.family} model is not causal",
            why="its answer at a token depends on the tokens that follow (measured on load), so in training "
            "it would read what it is to predict",
            fix="load it as what it is: an encoder as a masked language model, or a decoder with "
            "is_decoder=true in its config.json",
        )


def _alike(lm: Any, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
    """Return whether answers are the same, up to the rounding of the model's precision."""
    differences = [
        ((a - b).float().abs().max() / b.float().abs().max().clamp(min=1e-3)).item()
        for a, b in zip(ours, theirs, strict=True)
    ]
    if lm.dtype in TOLERANCE:
        return all(d <= TOLERANCE[lm.dtype] for d in differences)  # not a number is not alike
    return sorted(differences)[len(differences) // 2] <= ROUNDED
