"""The memory that a training step keeps for its backward pass, measured on short rows.

Every tensor that autograd saves is counted, each storage once; weights and cached columns are not counted:
they are in memory anyway. What layers keep grows with a row's tokens, and with their square where attention
scores are kept:

    bytes(x) = k + a x + c x²

k (of the soft tokens), a and c come from three short rows, shaped like those of the largest batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.collate import Batch, batch_of_ids
from ..data.example import Example
from ..lm.base import LanguageModel
from ..lm.context import Context
from ..methods.base import SoftPrompt
from .losses import next_token

SHORT = (16, 32, 64)  # tokens of the rows


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a batch is given by its rows and its longest input and target."""

    rows: int
    inputs: int
    targets: int

    @property
    def tokens(self) -> int:
        """Return the tokens of one row."""
        return self.inputs + self.targets


def largest_batch(examples: Sequence[Example], batch_size: int, batch_tokens: int | None = None) -> Shape:
    """Return the shape of the largest batch that may occur: that of the longest rows."""
    sides = [lengths for e in examples for lengths in e.lengths]
    a_row = max(1, round(len(sides) / len(examples)))  # rows of the batch
    ordered = sorted(sides, key=sum, reverse=True)
    longest = ordered[:1] if batch_tokens is not None else ordered[: batch_size * a_row]
    inputs = max(length for length, _ in longest)
    targets = max(1, *(length for _, length in longest))
    rows = len(longest) if batch_tokens is None else max(1, batch_tokens // (inputs + targets))
    return Shape(min(rows, len(sides)), inputs, targets)


def backward_bytes(lm: LanguageModel, method: SoftPrompt, shape: Shape, *, full: bool) -> int:
    """Measure the bytes that a step over a batch of that shape keeps, without gradient checkpointing.

    `full`: nothing is cached.
    """
    with without_checkpointing(lm):
        if shape.tokens <= SHORT[-1]:
            return shape.rows * _saved(lm, method, shape, full)
        at_x, at_y, at_z = (_saved(lm, method, _like(shape, tokens), full) for tokens in SHORT)
    x, y, z = SHORT
    slope, later = (at_y - at_x) / (y - x), (at_z - at_y) / (z - y)
    square = max(0.0, (later - slope) / (z - x))
    return round(shape.rows * (at_z + (shape.tokens - z) * (later + square * (shape.tokens - y))))


@contextlib.contextmanager
def without_checkpointing(lm: LanguageModel) -> Iterator[None]:
    """Switch gradient checkpointing off, and afterwards on again if it was on."""
    was_on = bool(lm.checkpointed)
    lm.set_gradient_checkpointing(False)
    try:
        yield
    finally:
        lm.set_gradient_checkpointing(was_on)


def checkpointed_bytes(lm: LanguageModel, shape: Shape, without: int) -> int:
    """Estimate the bytes kept under checkpointing: the input of every layer, and one layer of `without`."""
    depth = max(1, len(lm.checkpointable_layers))
    inputs = shape.rows * shape.tokens * lm.spec.hidden_size * lm.dtype.itemsize * depth
    return min(without, inputs + without // depth)


def _like(shape: Shape, tokens: int) -> Shape:
    """Shape a row of so many tokens, with as large a share of targets."""
    targets = max(1, round(shape.targets * tokens / shape.tokens))
    return Shape(1, max(1, tokens - targets), targets)


def _saved(lm: LanguageModel, method: SoftPrompt, shape: Shape, full: bool) -> int:
    """Count the bytes that one row of that shape keeps."""
    batch = _row(lm, shape)
    context = None if full else lm.prefill(batch)
    weights = (*lm.model.parameters(), *lm.model.buffers())
    present = {_storage(tensor)[0] for tensor in (*weights, *_tensors(method, context))}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        place, size = _storage(tensor)
        saved[place] = size
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        next_token(lm, method, batch, context)
    return sum(size for place, size in saved.items() if place not in present)


def _row(lm: LanguageModel, shape: Shape) -> Batch:
    """Make one row of that shape."""
    outputs = lm.spec.vocab_size if lm.head is None else lm.head.size or lm.spec.hidden_size
    ids = [(7 * i + 3) % lm.spec.vocab_size for i in range(shape.inputs)]
    targets = 1 if lm.head is not None and lm.head.over != "tokens" else shape.targets
    placed = lm.answers == "mask" or (lm.head is not None and lm.head.over == "tokens")
    places = [[i % shape.inputs for i in range(targets)]] if placed else None
    return batch_of_ids([ids], [[i % outputs for i in range(targets)]], device=lm.device, places=places)


def _tensors(method: SoftPrompt, context: Context | None) -> list[Tensor]:
    layers = [] if context is None else [layer for layer in context.layers if layer is not None]
    return [*method.parameters(), *method.buffers(), *(t for kv in layers for t in (kv.key, kv.value))]


def _storage(tensor: Tensor) -> tuple[int, int]:
    """Return the address of a tensor's storage, and the bytes of the storage."""
    try:
        storage = tensor.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    except (RuntimeError, NotImplementedError):  # a quantized weight has no storage of its own
        return id(tensor), 0
