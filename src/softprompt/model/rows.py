"""A padded batch as transformers has it becomes a `Batch`: which tokens are input, and which are answered.

Transformers keeps a row whole: `input_ids` and `attention_mask` [batch, columns], with `labels` of the same
shape that are -100 where nothing is predicted. A prompt behind the input has to know where the input ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.collate import Batch, at_right
from ..errors import SoftPromptError

IGNORED = -100  # the label of a token that is not predicted, in every model of transformers


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one call have no padding: their tokens, and how many of them are the input."""

    batch: Batch
    columns: Tensor  # [batch, columns]: the number of each token in its row; -1: padding
    inputs: Tensor  # [batch]: tokens of the input

    @property
    def lengths(self) -> Tensor:
        """The number of tokens that each row has: [batch]."""
        return (self.columns >= 0).sum(1)


def rows_of(
    ids: Tensor,
    mask: Tensor | None,
    prompts: Tensor,
    *,
    labels: Tensor | None = None,
    input_lengths: Sequence[int] | Tensor | None = None,
    is_split: bool,
) -> Rows:
    """Split each row into input and answer, or take it whole where no vector depends on that.

    `labels` [batch, columns] begin with -100 for as long as the input lasts; `input_lengths` [batch] counts
    the tokens of the input instead. Raises SoftPromptError where a split is needed and neither is given, and
    for a row without input.
    """
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    columns = torch.where(real, real.long().cumsum(1) - 1, -1)
    lengths = real.sum(1)
    inputs = lengths if not is_split else _input_lengths(columns, labels, input_lengths, lengths)
    number = torch.arange(int(lengths.max()), device=ids.device)
    order = real.to(torch.uint8).argsort(dim=1, stable=True, descending=True)[:, : len(number)]
    packed = ids.gather(1, order)  # at the left, without gaps
    is_input = number < inputs[:, None]
    is_answer = (number < lengths[:, None]) & ~is_input
    input_ids, input_mask = at_right(packed, is_input)
    answer_ids, answer_mask = at_right(packed, is_answer)
    # A batch's last target is never fed back to the model: here every token is, so one more follows.
    end = torch.zeros_like(answer_ids[:, :1]) if answer_ids.shape[1] else answer_ids.new_zeros(len(ids), 1)
    batch = Batch(
        input_ids,
        input_mask,
        torch.cat([answer_ids, end], dim=1),
        torch.cat([answer_mask, torch.ones_like(end, dtype=torch.bool)], dim=1),
        prompts,
    )
    return Rows(batch, columns, inputs)


def _input_lengths(
    columns: Tensor, labels: Tensor | None, given: Sequence[int] | Tensor | None, lengths: Tensor
) -> Tensor:
    if given is not None:
        inputs = torch.as_tensor(given, device=lengths.device).long()
        if inputs.shape != lengths.shape or bool(((inputs < 1) | (inputs > lengths)).any()):
            raise SoftPromptError(
                f"input_lengths={inputs.tolist()} do not fit the rows",
                why=f"the rows have {lengths.tolist()} tokens",
                fix="give one number for each row: the tokens of its input, at least one",
            )
        return inputs
    if labels is None:
        raise SoftPromptError(
            "the prompt is placed after the input, and the batch does not say where the input ends",
            why="the model is given neither labels nor input_lengths (a Trainer keeps the labels to itself "
            "with label_smoothing_factor or compute_loss_func)",
            fix="pass labels with -100 on the input's tokens, or input_lengths=[…] for each row",
        )
    if labels.shape != columns.shape:
        raise SoftPromptError(
            f"labels have the shape {list(labels.shape)}, and input_ids {list(columns.shape)}",
            why="the prompt is placed after the input, which lasts up to the first label",
            fix="give a label for each token, -100 on the input's",
        )
    answered = (labels != IGNORED) & (columns >= 0)
    inputs = torch.where(answered, columns, columns.shape[1]).amin(1).minimum(lengths)
    if bool((inputs < 1).any()):
        raise SoftPromptError(
            f"row {int((inputs < 1).nonzero()[0])} of the batch has no input for the prompt to follow",
            why="the label of its first token is not -100",
            fix="set the labels of the input's tokens to -100, pass input_lengths, or use placement=before",
        )
    return inputs
