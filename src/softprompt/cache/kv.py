"""Keys and values of one row are kept as a list of tensors, and rows are joined into a batch's `Context`.

A row is [2 · layers, heads, n, d] in one tensor where its layers are alike, else a tensor for each
layer's keys and each layer's values, [heads, n, d]. It is kept in the model's own precision or as
int8, where each head and channel has a scale of its own over the row: channels of keys differ in size
by orders of magnitude, tokens do not (Liu et al. 2024, "KIVI").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal, final

import numpy
import torch
from torch import Tensor

from ..data.collate import batch_of_ids
from ..data.example import Example
from ..data.tokens import Ids
from ..injection import LayerKV
from ..lm import held_weights
from ..lm.base import LanguageModel
from ..lm.context import Context
from ..lm.held_layers import plain_layers
from ..lm.ragged import Ragged
from .base import Row
from .keys import about, key_of, name_of_ids

RAGGED_TOKENS = 384  # in a batch's mean row; from here on, rows are not copied (docs/performance.md)
BEGINNING_TOKENS = 16  # a shorter common beginning is not worth keeping separately

Form = Literal["auto", "int8"]  # auto: the model's own precision


@final
class KeyValues:
    """Compute keys and values of inputs under the plain model, as a `cache.base.Constant`."""

    content = "keys and values"

    def __init__(
        self,
        lm: LanguageModel,
        form: Form = "auto",
        ahead: Sequence[int] = (),
        rounds: Callable[[], bool] | None = None,
    ) -> None:
        """Keep `ahead`, tokens that every input begins with (see `common_beginning`), only once.

        `rounds` returns whether rows are computed from held weights whose sums differ by rounding. By
        default it asks whether the run that is under way reads such weights.
        """
        self.lm = lm
        self._rounds = rounds or partial(held_weights.rounds, lm)
        self.form: Form = form
        self.ahead = tuple(ahead)

    @property
    def key(self) -> str:
        """Identify the base (every weight of it), its precision, the form and the common beginning.

        Rows of held weights have another key: a run with plain weights must not read their rounding.
        """
        ahead = {"ahead": name_of_ids(self.ahead)} if self.ahead else {}
        return key_of(about(self.lm), form=self.form, held=self._rounds(), **ahead)

    @cached_property
    def beginning(self) -> Context | None:
        """Compute the context of the common beginning, one row."""
        return context_of(self.lm, self.ahead)

    def name(self, example: Example) -> str:
        return name_of_ids(example.input_ids)

    def tokens(self, example: Example) -> int:
        return cached_tokens(example) - len(self.ahead)

    def bytes_needed(self, examples: Iterable[Example]) -> int:
        numbers, size = self.lm.spec.kv_numbers_per_token, self.lm.dtype.itemsize
        if self.form == "int8":
            return (
                sum(self.tokens(e) + size for e in examples) * numbers
            )  # one scale for each channel and row
        return sum(self.tokens(e) for e in examples) * size * numbers

    def compute(self, examples: Sequence[Example]) -> list[Row]:
        """Run the plain model on a few examples."""
        batch = batch_of_ids([e.input_ids[len(self.ahead) :] for e in examples], device=self.lm.device)
        with held_weights.in_steps(self.lm):
            context = self.lm.prefill(batch, None, self.beginning)
        rows = [_pack(context, position, self.tokens(e)) for position, e in enumerate(examples)]
        return [_compressed(row) for row in rows] if self.form == "int8" else rows

    def assemble(self, rows: Sequence[Row]) -> Context:
        """Join rows into a batch, aligned on the right, on the model's device."""
        return replace(assemble(rows, self.form, self.lm), ahead=self.beginning)


def cached_tokens(example: Example) -> int:
    """Count the tokens whose keys and values are kept; each step computes the last input token anew."""
    return len(example.input_ids) - 1


def common_beginning(lm: LanguageModel, examples: Iterable[Example]) -> Ids:
    """Return the tokens that every input begins with, if there are enough to keep them separately.

    Their number is a multiple of `BEGINNING_TOKENS`. Otherwise the few tokens that rows share by chance would
    change the cache's name with every row that is added.
    """
    inputs = {tuple(e.input_ids) for e in examples}
    if len(inputs) < 2 or not lm.shares_beginnings:
        return ()
    same = beginning(inputs)
    return same[: len(same) // BEGINNING_TOKENS * BEGINNING_TOKENS]


def beginning(inputs: Collection[Ids]) -> Ids:
    """Return the tokens that all inputs begin with, at least one token short of each."""
    first, last = min(inputs), max(inputs)  # in the order of their tokens: all others are between them
    count = min(len(ids) for ids in inputs) - 1
    return first[: next((i for i in range(count) if first[i] != last[i]), count)]


def context_of(lm: LanguageModel, ahead: Ids) -> Context | None:
    """Compute the context, of one row, of tokens that every input begins with; None without any.

    Weights are plain: it is not kept on disk, and a resumed run reads it at another place than the first.
    """
    if not ahead:
        return None
    with plain_layers():
        # the last token of an input is no part of its context
        return lm.prefill(batch_of_ids([[*ahead, 0]], device=lm.device))


def assemble(rows: Sequence[Row], form: Form, lm: LanguageModel) -> Context:
    """Join rows into a batch, aligned on the right, on the model's device."""
    if form == "int8":
        rows = [[_from_int8(*pair) for pair in zip(row[::2], row[1::2], strict=True)] for row in rows]
    lengths = [row[0].shape[-2] for row in rows]
    width = max(lengths)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, n in enumerate(lengths):
        mask[i, width - n :] = True
    if lm.device.type == "cpu" and len(rows) > 1 and sum(lengths) >= len(rows) * RAGGED_TOKENS:
        parts = [list(row[0].unbind(0)) if _is_packed(row) else row for row in rows]
        return Context(_layers([Ragged(column) for column in zip(*parts, strict=True)], lm), mask)
    packed = []
    for part, like in enumerate(rows[0]):
        out = _empty((*like.shape[:-3], len(rows), like.shape[-3], width, like.shape[-1]), like)
        for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
            out[..., i, :, : width - n, :] = 0
            out[..., i, :, width - n :, :] = row[part]
        packed.append(out.to(lm.device))
    return Context(_unpack(packed, lm), mask.to(lm.device))


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Get uninitialised memory where the rows are: on a CPU from numpy, which asks for large pages.

    Each step needs new memory for its context. In pages of 4 kB, getting 94 MB took 44 ms, more than filling
    and reading them.
    """
    numbers, dtype = math.prod(shape), like.dtype
    if not numbers or like.device.type != "cpu":  # numpy gives no strides for an empty array
        return torch.empty(*shape, dtype=dtype, device=like.device)
    return torch.from_numpy(numpy.empty(numbers * dtype.itemsize, numpy.uint8)).view(dtype).view(*shape)


def _pack(context: Context, position: int, length: int) -> Row:
    """Take one row's real columns."""
    parts = []
    for layer in context.layers:
        if layer is not None:
            width = layer.key.shape[2]
            parts += [t[position, :, width - length :] for t in (layer.key, layer.value)]
    if len({part.shape for part in parts}) == 1:
        return [torch.stack(parts)]
    return [part.clone() for part in parts]


def _unpack(packed: list[Tensor], lm: LanguageModel) -> tuple[LayerKV | None, ...]:
    return _layers(list(packed[0].unbind(0)) if len(packed) == 1 and packed[0].dim() == 5 else packed, lm)


def _is_packed(row: Row) -> bool:
    """Return True where all layers are in one tensor [2 · layers, heads, n, d]."""
    return len(row) == 1 and row[0].dim() == 4


def _layers(parts: Sequence[Any], lm: LanguageModel) -> tuple[LayerKV | None, ...]:
    """Return one pair for each layer from `parts`: keys and values in turn, layer by layer."""
    pairs = iter(parts)
    return tuple(LayerKV(next(pairs), next(pairs)) for _ in lm.spec.layers)


def _compressed(row: Row) -> Row:
    """Replace each tensor of the row by its numbers and scales."""
    return [tensor for part in row for tensor in _to_int8(part)]


def _to_int8(part: Tensor) -> tuple[Tensor, Tensor]:
    """Round `part` [..., n, d] to int8 [..., n, d], with the scales of its channels [..., 1, d].

    The error of a restored number is at most one scale: half from rounding it, half from rounding the scale.
    """
    if part.shape[-2] == 0:
        return part.to(torch.int8), part.new_ones(*part.shape[:-2], 1, part.shape[-1])
    scale = part.abs().amax(-2, keepdim=True) / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (part.float() / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def _from_int8(numbers: Tensor, scale: Tensor) -> Tensor:
    return (numbers.float() * scale.float()).to(scale.dtype)
