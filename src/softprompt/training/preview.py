"""The rows of a run are counted, and examples are laid out token by token. Nothing here prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch

from ..data.collate import collate
from ..data.example import Example
from ..data.row_notes import Remark, remarks
from ..injection import Prefix, SoftTokens
from ..lm.apply import injection_for
from ..lm.vocabulary import token_text
from .prepare import Prepared

Part = Literal["input", "target", "rejected", "soft", "prefix", "adapter"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an example is its tokens as text, or a number of vectors (in a number of layers)."""

    part: Part
    tokens: tuple[str, ...] = ()
    vectors: int = 0
    layers: int = 0


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths are counted in tokens."""

    median: float
    longest: int


@dataclass(frozen=True)
class Counts:
    """Counts of rows, and remarks that were made on them."""

    rows: int
    dev_rows: int
    prompts: dict[str, int]  # training rows by prompt
    labels: dict[str, int]  # training rows by label, or words by tag; empty where there are none
    truncated: int  # of all rows: input or target was cut
    empty: int  # of all rows: a field that the template names is blank
    duplicates: int  # training rows that equal an earlier one
    seen_in_dev: int  # dev rows whose input is trained on
    inputs: Lengths
    targets: Lengths
    remarks: list[Remark]  # on anything else that is odd


def count(prepared: Prepared) -> Counts:
    """Count the rows of a run."""
    train, dev = prepared.train, prepared.dev
    every = [*train, *dev]
    fields = prepared.encoder.template.fields()
    keys = [(e.prompt, e.rendered.input, e.rendered.target, e.rendered.rejected) for e in train]
    trained_on = {(e.prompt, e.rendered.input) for e in train}
    names = Counter(prepared.prompts[e.prompt] for e in train)
    labels = Counter(label for e in train for label in e.rendered.tags or (e.rendered.target,))
    return Counts(
        rows=len(train),
        dev_rows=len(dev),
        prompts=dict(names),
        labels={label: labels[label] for label in prepared.encoder.labels or ()},
        truncated=sum(e.truncated > 0 for e in every),
        empty=sum(any(not str(e.rendered.row.get(f, "")).strip() for f in fields) for e in every),
        duplicates=len(keys) - len(set(keys)),
        seen_in_dev=sum((e.prompt, e.rendered.input) in trained_on for e in dev),
        inputs=_lengths([len(e.input_ids) for e in every]),
        targets=_lengths([len(ids) for e in every for ids in e.answers]),
        remarks=remarks(prepared.encoder, every),
    )


def layout(prepared: Prepared, example: Example) -> list[Piece]:
    """Split the example into pieces, in the order in which the model reads them.

    A prefix placed after the input is shown ahead of the last input token: that token predicts the first
    token of the target, so it is the first that sees the prefix. In an encoder, soft tokens placed before
    the input come after its first token, and a prefix placed after it comes after its last token.
    """
    batch = collate([example], prepared.lm.device)
    with torch.no_grad():
        injection = injection_for(prepared.lm, prepared.method, batch)
    lm = prepared.lm
    both_ways = lm.spec.kind == "encoder"
    tokens = tuple(token_text(lm.tokenizer, i) for i in example.input_ids)
    # the tokens ahead of the soft tokens, and the tokens that follow a prefix placed after the input
    first, last = (1, 0) if both_ways else (0, 0 if injection.kv_after is None else 1)
    middle = len(tokens) - last
    pieces = [
        _vectors(injection.adapter, "adapter"),
        _vectors(injection.kv_before, "prefix"),
        _tokens(tokens[:first]),
        _vectors(injection.before, "soft"),
        _tokens(tokens[first:middle]),
        None if both_ways else _vectors(injection.kv_after, "prefix"),
        _tokens(tokens[middle:]),
        _vectors(injection.after, "soft"),
        _vectors(injection.kv_after, "prefix") if both_ways else None,
        Piece("target", _target(prepared, example)),
        Piece("rejected", _texts(prepared, example.rejected_ids)) if example.rejected_ids else None,
    ]
    return [piece for piece in pieces if piece is not None]


def _tokens(tokens: tuple[str, ...]) -> Piece | None:
    return Piece("input", tokens) if tokens else None


def _target(prepared: Prepared, example: Example) -> tuple[str, ...]:
    """Return the target as text: its tokens, the labels of a head's outputs, or a query's document."""
    if prepared.lm.answers in ("head", "pooled"):
        return example.rendered.tags or (example.rendered.target,)
    return _texts(prepared, example.target_ids)


def _texts(prepared: Prepared, ids: Sequence[int]) -> tuple[str, ...]:
    return tuple(token_text(prepared.lm.tokenizer, i) for i in ids)


def examples_to_show(prepared: Prepared, number: int = 3) -> list[Example]:
    """Choose training rows of different prompts, then of different targets, then the first ones."""
    chosen: list[Example] = []
    for difference in (lambda e: e.prompt, lambda e: e.rendered.target, lambda e: e.rendered.input):
        for example in prepared.train:
            if len(chosen) < number and difference(example) not in {difference(e) for e in chosen}:
                chosen.append(example)
    return chosen


def _vectors(part: SoftTokens | Prefix | None, name: Part) -> Piece | None:
    if part is None:
        return None
    length = int(part.mask[0].sum())
    layers = sum(layer is not None for layer in part.layers) if isinstance(part, Prefix) else 0
    return Piece(name, vectors=length, layers=layers)


def _lengths(numbers: Sequence[int]) -> Lengths:
    return Lengths(float(median(numbers)), max(numbers))
