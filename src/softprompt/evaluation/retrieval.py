"""The rows of an embedding task are scored: each query ranks all documents of its prompt's rows.

The corpus is every positive and negative of the rows that are scored, each once. A document that is the query
itself is left out. Of documents that are equally near, those that do not fit count as the nearer ones, so
that a model that gives all texts one vector gets the last ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..data.batching import by_tokens
from ..data.collate import collate
from ..data.example import Example
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.contrastive import unit
from ..methods.base import SoftPrompt
from .records import Record

QUERIES_AT_ONCE = 256


@torch.no_grad()
def vectors_of(
    lm: LanguageModel,
    method: SoftPrompt,
    texts: Sequence[Example],
    batch_tokens: int,
    count: Callable[[Sequence[int]], None] = lambda rows: None,
) -> Tensor:
    """Return the vectors [N, H] of texts under a method, float32 on the CPU; `count` gets the rows done."""
    vectors: list[Tensor | None] = [None] * len(texts)
    lengths = [len(text.input_ids) for text in texts]
    order = sorted(range(len(texts)), key=lengths.__getitem__)
    for rows in by_tokens(order, lengths, batch_tokens):
        batch = collate([texts[i] for i in rows], lm.device, targets=False)
        for i, vector in zip(rows, lm.logits(batch, injection_for(lm, method, batch))[:, 0], strict=True):
            vectors[i] = vector.float().cpu()
        count(rows)
    return torch.stack([vector for vector in vectors if vector is not None])


def distinct(examples: Sequence[Example]) -> tuple[list[Example], list[list[int]]]:
    """Return the distinct texts of embedding rows, and the numbers of each row's texts, the query's first.

    Texts are the same where their tokens are, under the same prompt.
    """
    numbers: dict[tuple, int] = {}
    texts: list[Example] = []
    rows: list[list[int]] = []
    for example in examples:
        row = []
        for side in example.sides():
            key = side.prompt, side.input_ids
            if key not in numbers:
                numbers[key] = len(texts)
                texts.append(side)
            row.append(numbers[key])
        rows.append(row)
    return texts, rows


def ranked(
    examples: Sequence[Example],
    texts: Sequence[Example],
    rows: Sequence[Sequence[int]],
    vectors: Tensor,
    scale: float,
) -> list[Record]:
    """Return the record of each row: the ranks of the documents that fit its query, and its loss."""
    vectors = unit(vectors)
    records: dict[int, Record] = {}
    for prompt in dict.fromkeys(example.prompt for example in examples):
        mine = [i for i, example in enumerate(examples) if example.prompt == prompt]
        corpus = list(dict.fromkeys(number for i in mine for number in rows[i][1:]))
        column = {number: place for place, number in enumerate(corpus)}
        fitting: dict[int, dict[int, None]] = {}
        counted: set[int] = set()  # queries: the first row of each counts for it
        for i in mine:
            fitting.setdefault(rows[i][0], {})[column[rows[i][1]]] = None
        for start in range(0, len(mine), QUERIES_AT_ONCE):
            part = mine[start : start + QUERIES_AT_ONCE]
            scores = vectors[[rows[i][0] for i in part]] @ vectors[corpus].T  # [queries, documents]
            for i, row in zip(part, scores, strict=True):
                query, positive = rows[i][0], column[rows[i][1]]
                relevant = list(fitting[query])
                if query in column and column[query] not in relevant:
                    row[column[query]] = -torch.inf
                best = texts[corpus[int(row.argmax())]].rendered.input
                loss = _loss(row, positive, relevant, scale)
                record = _record(examples[i], best, loss)
                weight = 0 if query in counted else 1
                counted.add(query)
                records[i] = replace(record, ranks=ranks_of(row, relevant), query_rows=weight)
    return [records[i] for i in range(len(examples))]


def scored(examples: Sequence[Example], rows: Sequence[Sequence[int]], vectors: Tensor) -> list[Record]:
    """Return the record of each pair: the cosine of its texts, and its squared distance from the score."""
    vectors = unit(vectors)
    records = []
    for example, (query, document) in zip(examples, rows, strict=True):
        cosine = float(vectors[query] @ vectors[document])
        error = (cosine - (example.value or 0.0)) ** 2
        records.append(_record(example, f"{cosine:.9g}", error))
    return records


def ranks_of(scores: Tensor, relevant: Sequence[int]) -> tuple[int, ...]:
    """Return the ranks (from 1) of the `relevant` ones of the scores [N], the best first.

    Of equal scores those that are not relevant come first.
    """
    of_relevant = scores[list(relevant)].sort(descending=True).values
    is_other = torch.ones_like(scores, dtype=torch.bool)
    is_other[list(relevant)] = False
    others = scores[is_other]
    # what is not a number is not nearer than anything: it gets the last ranks
    return tuple(int((~(others < score)).sum()) + place for place, score in enumerate(of_relevant, 1))


def _loss(scores: Tensor, positive: int, relevant: Sequence[int], scale: float) -> float:
    """Return the ranking loss of a row among all documents but the others that fit."""
    others = scores.clone()
    others[[column for column in relevant if column != positive]] = -torch.inf
    return float((scale * others).logsumexp(0) - scale * scores[positive])


def _record(example: Example, prediction: str, loss: float) -> Record:
    rendered = example.rendered
    return Record(rendered.input, prediction, rendered.references, example.prompt, loss, 1)
