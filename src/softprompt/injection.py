"""An `Injection` holds all that a method gives a frozen model: soft tokens, keys and values, or both.

The types between methods and models are defined here. A method returns an `Injection`; `lm.causal`
turns it into model input. Neither knows the other. This file knows nothing of models or methods.

Shapes are types. The tests check them at every call, here and in `methods/`. The names of dimensions:

    batch       rows of a batch; `#batch`: that number, or 1 where one row serves all of them
    prefix      injected positions of a row: soft tokens, or columns of keys and values
    hidden      numbers in a token's embedding
    layers      attention layers
    heads       query heads of a layer;   kv_heads: its heads of keys and values
    head_dim    numbers in a key of one head;   v_head_dim: in a value of one head
    keys        numbers in a token's keys of all layers, side by side;   values: the same of its values
    prompts     prompts in a method's table
    inputs      positions of the input that a prompt reads;   features: numbers in each of them
    shared      tokens that two vocabularies share;   source, target: numbers in an embedding of each model

Rows of one batch may carry different lengths: every tensor has a boolean mask [batch, prefix] beside it,
True where a vector is real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from .errors import SoftPromptError

if TYPE_CHECKING:
    Columns = Tensor
else:  # cached rows of unlike lengths take a tensor's place (`lm.ragged`): they have its shape and dtype
    Columns = Any


@dataclass(frozen=True, slots=True)
class LayerKV:
    """Keys and values of one layer, post-rotary, as a KV cache holds them.

    `gate`, where given, makes this a LLaMA-Adapter layer: a softmax of its own over these columns,
    scaled by tanh(gate), is added to the layer's attention output.
    """

    key: Float[Columns, "#batch kv_heads prefix head_dim"]
    value: Float[Columns, "#batch kv_heads prefix v_head_dim"]
    gate: Float[Tensor, "#batch heads"] | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> LayerKV:
        """Apply `change` to each of the layer's tensors."""
        return LayerKV(change(self.key), change(self.value), None if self.gate is None else change(self.gate))


Layers = tuple[LayerKV | None, ...]  # one entry a layer; None where nothing is injected


@dataclass(frozen=True, slots=True)
class SoftTokens:
    """Vectors in the input sequence, used like token embeddings."""

    vectors: Float[Tensor, "batch prefix hidden"]
    mask: Bool[Tensor, "batch prefix"]


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of every layer.

    On rotary models the keys have positions -P … -1: ahead of the first real token for `kv_before`,
    ahead of the last input token for `kv_after` (which moves them there, row by row).
    """

    layers: Layers
    mask: Bool[Tensor, "batch prefix"]
    # which rows reach a layer; None (or an empty tuple): every row reaches it
    reach: tuple[Bool[Tensor, " batch"] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Injection:
    """All that a method may give the model. An injection without channels means the plain model."""

    before: SoftTokens | None = None  # ahead of the input
    after: SoftTokens | None = None  # between input and target (encoder-decoder: at the input's end)
    decoder: SoftTokens | None = None  # ahead of the decoder's first token (encoder-decoder models alone)
    kv_before: Prefix | None = None  # seen by the input and the target
    kv_after: Prefix | None = None  # seen from the last input token on (the infix of Li & Liang)
    adapter: Prefix | None = None  # gated, seen by all (LLaMA-Adapter)

    def channels(self) -> dict[str, SoftTokens | Prefix]:
        """The parts that are present, by name."""
        return {f.name: part for f in fields(self) if (part := getattr(self, f.name)) is not None}

    def repeat_rows(self, times: int) -> Injection:
        """Repeat each row `times` times in place: [a, b] becomes [a, a, b, b] (beams, label scoring)."""
        return self if times == 1 else self.map_rows(lambda t: t.repeat_interleave(times, dim=0))

    def select(self, rows: Int[Tensor, " rows"]) -> Injection:
        """Take the rows with the given indices."""
        return self.map_rows(lambda t: t.index_select(0, rows.to(t.device)))

    def fit(self, rows: int) -> Injection:
        """Expand an injection of one row to `rows` rows; keys and values broadcast and stay as they are.

        Raises SoftPromptError for an injection of another number of rows.
        """
        return Injection(**{name: _fit(part, rows) for name, part in self.channels().items()})  # type: ignore[arg-type]

    def map_rows(self, change: Callable[[Tensor], Tensor]) -> Injection:
        """Apply `change` to every tensor that has a row axis."""
        return replace(self, **{name: _map_part(part, change) for name, part in self.channels().items()})

    @staticmethod
    def cat(parts: Sequence[Injection], sizes: Sequence[int] | None = None) -> Injection:
        """Join the rows of several injections, of any methods and lengths, into one batch.

        Where a row lacks a channel that another row has, its mask is False there. `sizes` are the numbers of
        rows; they are needed where an injection without channels has more than one row.
        """
        if len(parts) == 1:
            return parts[0]
        sizes = sizes or [injection_rows(part) for part in parts]
        names = {name for part in parts for name in part.channels()}
        merged: dict[str, Any] = {
            name: _cat_channel([getattr(part, name) for part in parts], sizes) for name in names
        }
        return Injection(**merged)


def injection_rows(injection: Injection) -> int:
    """Return the number of rows of an injection; one without channels counts as one row."""
    for part in injection.channels().values():
        return part.mask.shape[0]
    return 1


def _fit(part: SoftTokens | Prefix, rows: int) -> SoftTokens | Prefix:
    if part.mask.shape[0] == rows:
        return part
    if part.mask.shape[0] != 1:
        raise SoftPromptError(
            f"an injection of {part.mask.shape[0]} rows does not fit a batch of {rows}",
            why="each row needs its own, or one serves all",
            fix="call the method with one prompt id for each row of the batch",
        )
    mask = part.mask.expand(rows, -1)
    if isinstance(part, SoftTokens):
        return SoftTokens(part.vectors.expand(rows, -1, -1), mask)
    return Prefix(part.layers, mask, tuple(None if r is None else r.expand(rows) for r in part.reach))


def _map_part(part: SoftTokens | Prefix, change: Callable[[Tensor], Tensor]) -> SoftTokens | Prefix:
    if isinstance(part, SoftTokens):
        return SoftTokens(change(part.vectors), change(part.mask))
    rows = part.mask.shape[0]
    layers = tuple(None if layer is None else _expand(layer, rows).map(change) for layer in part.layers)
    reach = tuple(None if rows is None else change(rows) for rows in part.reach)
    return Prefix(layers, change(part.mask), reach)


def _expand(layer: LayerKV, rows: int) -> LayerKV:
    return layer.map(lambda t: t.expand(rows, *t.shape[1:]))


def _cat_channel(parts: Sequence[SoftTokens | Prefix | None], sizes: Sequence[int]) -> SoftTokens | Prefix:
    present = [part for part in parts if part is not None]
    length, like = max(part.mask.shape[1] for part in present), present[0]
    mask = _cat_rows([None if part is None else part.mask for part in parts], sizes, length, dim=1)
    if isinstance(like, SoftTokens):
        vectors = [part.vectors if isinstance(part, SoftTokens) else None for part in parts]
        return SoftTokens(_cat_rows(vectors, sizes, length, dim=1), mask)
    prefixes = [part if isinstance(part, Prefix) else None for part in parts]
    indices = range(len(like.layers))
    layers = tuple(
        _cat_layer([None if part is None else part.layers[i] for part in prefixes], sizes, length)
        for i in indices
    )
    reach = tuple(_cat_reach(prefixes, sizes, i, mask.device) for i in indices)
    return Prefix(layers, mask, reach if any(rows is not None for rows in reach) else ())


def _cat_reach(
    parts: Sequence[Prefix | None], sizes: Sequence[int], index: int, device: torch.device
) -> Bool[Tensor, " batch"] | None:
    """Join the masks of the rows that reach a layer; None where all rows that have a prefix reach it."""
    rows = []
    for part, n in zip(parts, sizes, strict=True):
        reach = part.reach[index] if part is not None and part.reach else None
        # a row without a prefix counts as reaching the layer: its mask hides the columns already
        reaches = part is None or part.layers[index] is not None
        rows.append(torch.full((n,), reaches, device=device) if reach is None else reach)
    joined = torch.cat(rows)
    return None if bool(joined.all()) else joined


def _cat_layer(layers: Sequence[LayerKV | None], sizes: Sequence[int], length: int) -> LayerKV | None:
    if all(layer is None for layer in layers):
        return None
    keys = [None if layer is None else layer.key for layer in layers]
    values = [None if layer is None else layer.value for layer in layers]
    gates = [None if layer is None else layer.gate for layer in layers]
    return LayerKV(
        _cat_rows(keys, sizes, length, dim=2),
        _cat_rows(values, sizes, length, dim=2),
        None if all(gate is None for gate in gates) else _cat_rows(gates, sizes),
    )


def _cat_rows(
    parts: Sequence[Shaped[Tensor, "_ ..."] | None],
    sizes: Sequence[int],
    length: int = 0,
    dim: int | None = None,
) -> Shaped[Tensor, "batch ..."]:
    """Join rows; zeros replace a missing part, and fill `dim` up to `length`.

    Zeros are added on the left, so that the vectors nearest the input keep their distance to it.
    """
    like = next(part for part in parts if part is not None)
    rows = []
    for part, n in zip(parts, sizes, strict=True):
        tensor = like.new_zeros(n, *like.shape[1:]) if part is None else part.expand(n, *part.shape[1:])
        if dim is not None and (missing := length - tensor.shape[dim]):
            tensor = torch.nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 1 - dim) + (missing, 0))
        rows.append(tensor)
    return torch.cat(rows)
