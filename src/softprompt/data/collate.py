"""Examples are collated into a `Batch`: right-aligned tensors with masks.

Rows are right-aligned in training and in generation, so the targets share the last columns and logits are
computed for target positions only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch has B rows. Masks are True on real tokens; the padding is on the left."""

    input_ids: Tensor  # [B, N]
    input_mask: Tensor  # [B, N] bool
    target_ids: Tensor  # [B, T]
    target_mask: Tensor  # [B, T] bool
    prompt_ids: Tensor  # [B]
    texts: tuple[str, ...] = ()  # the rendered inputs, for prefix models with a tokenizer of their own
    features: Tensor | None = None  # [B, M, D] what a generated prompt reads, where it is precomputed
    features_mask: Tensor | None = None  # [B, M] bool
    places: Tensor | None = None  # [B, T] tokens of the row ahead of where each target is read (encoders)
    values: Tensor | None = None  # [B] float32, the numbers that a regression predicts
    teacher_ids: Tensor | None = None  # [B, T, k] a teacher's likeliest tokens at each target
    teacher_logprobs: Tensor | None = None  # [B, T, k] float32, their log-probabilities in nats
    sides: Tensor | None = None  # [B] 0 a query, 1 its positive, 2 … its negatives, which follow it
    hidden: Tensor | None = (
        None  # [B, P] bool, columns of the prefix that a training step hides; at the right
    )

    @property
    def size(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        return self._changed(lambda tensor: tensor.to(device))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {name: getattr(self, name) for name in self.__slots__}
        return replace(
            self, **{name: change(value) for name, value in tensors.items() if isinstance(value, Tensor)}
        )

    def with_inputs_at_right(self) -> Batch:
        """Move the padding of the inputs to the left, and drop columns that no row uses."""
        ids, mask = at_right(self.input_ids, self.input_mask)
        return replace(self, input_ids=ids, input_mask=mask)

    def with_targets_at_right(self) -> Batch:
        """Drop target columns that no row uses; targets are at the right already."""
        width = int(self.target_mask.sum(1).max()) if self.target_mask.numel() else 0
        start = self.target_ids.shape[1] - width
        names = ("target_ids", "target_mask", "teacher_ids", "teacher_logprobs")
        columns = {name: value[:, start:] for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **columns)

    def select(self, rows: Tensor) -> Batch:
        """Return the rows with the given indices [N]."""
        texts = tuple(self.texts[i] for i in rows.tolist()) if self.texts else ()
        return replace(self._changed(lambda tensor: tensor[rows]), texts=texts)

    def shared_tokens(self) -> int:
        """Count the tokens that all (right-aligned) inputs begin with; each input has at least one more."""
        lengths = self.input_mask.sum(1, keepdim=True)
        columns = torch.arange(int(lengths.min()) - 1, device=self.input_ids.device)
        ids = self.input_ids.gather(1, self.input_ids.shape[1] - lengths + columns)
        return int((ids == ids[:1]).all(0).cumprod(0).sum())

    def without_first(self, count: int) -> Batch:
        """Drop the first `count` tokens of each (right-aligned) input."""
        if not count:
            return self
        width = self.input_ids.shape[1]
        first = width - self.input_mask.sum(1, keepdim=True) + count
        mask = torch.arange(width, device=self.input_ids.device) >= first
        return replace(self, input_ids=self.input_ids[:, count:], input_mask=mask[:, count:])

    def with_targets(self, targets: Sequence[Sequence[int]]) -> Batch:
        """Replace the targets, one for each row."""
        ids, mask = pad_left(targets, self.input_ids.device)
        return replace(self, target_ids=ids, target_mask=mask, teacher_ids=None, teacher_logprobs=None)

    def repeat_rows(self, times: int) -> Batch:
        """Repeat each row `times` times in place."""
        texts = tuple(text for text in self.texts for _ in range(times))
        return replace(self._changed(lambda tensor: tensor.repeat_interleave(times, dim=0)), texts=texts)


def at_right(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the tokens [B, N] that the mask marks to the right, and drop columns that no row uses."""
    width = int(mask.sum(1).max()) if mask.numel() else 0
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)[:, mask.shape[1] - width :]
    return ids.gather(1, order), mask.gather(1, order)


def pad_left(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return token ids [B, longest] with zeros on the left, and the mask of the real ones."""
    width = max((len(row) for row in rows), default=0)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        if row:
            ids[index, width - len(row) :] = torch.as_tensor(row)
            mask[index, width - len(row) :] = True
    return ids.to(device), mask.to(device)


def collate(examples: Sequence, device: torch.device | str = "cpu", *, targets: bool = True) -> Batch:
    """Return a batch of `data.example.Example`s; without `targets` for generation and label scoring."""
    input_ids, input_mask = pad_left([e.input_ids for e in examples], device)
    target_ids, target_mask = pad_left([e.target_ids if targets else () for e in examples], device)
    placed = any(e.places for e in examples)
    sided = targets and any(e.side is not None for e in examples)
    valued = targets and any(e.value is not None for e in examples)
    known = [e.teacher for e in examples] if targets else []
    taught = bool(known) and all(teacher is not None for teacher in known)
    return Batch(
        input_ids,
        input_mask,
        target_ids,
        target_mask,
        torch.tensor([e.prompt for e in examples], dtype=torch.long, device=device),
        tuple(e.rendered.input for e in examples),
        places=pad_left([e.places for e in examples], device)[0] if placed else None,
        values=torch.tensor([e.value for e in examples], device=device) if valued else None,
        sides=torch.tensor([e.side or 0 for e in examples], device=device) if sided else None,
        teacher_ids=_stack_right([ids for ids, _ in known], device) if taught else None,
        teacher_logprobs=_stack_right([logprobs for _, logprobs in known], device) if taught else None,
    )


def _stack_right(rows: Sequence[Tensor], device: torch.device | str) -> Tensor:
    """Stack tensors [T_i, k] as [B, T, k], with zeros ahead of shorter ones."""
    width = max(len(row) for row in rows)
    out = rows[0].new_zeros(len(rows), width, rows[0].shape[1])
    for i, row in enumerate(rows):
        out[i, width - len(row) :] = row
    return out.to(device)


def batch_of_ids(
    inputs: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]] | None = None,
    prompts: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    places: Sequence[Sequence[int]] | None = None,
) -> Batch:
    """Make a batch from token ids alone, for callers without a template."""
    input_ids, input_mask = pad_left(inputs, device)
    target_ids, target_mask = pad_left(targets if targets is not None else [()] * len(inputs), device)
    prompt_ids = torch.tensor(prompts or [0] * len(inputs), dtype=torch.long, device=device)
    at = None if places is None else pad_left(places, device)[0]
    texts = ("",) * len(inputs)
    return Batch(input_ids, input_mask, target_ids, target_mask, prompt_ids, texts, places=at)
