"""Answers that are not written as text: the likeliest label or choice, tags of words, and numbers.

Labels and choices are scored by their exact log-probability over all their tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.batching import by_tokens
from ..data.collate import Batch
from ..data.encode import Encoder
from ..data.example import Example
from ..injection import Injection
from ..lm.base import LanguageModel
from ..lm.context import Context
from .likelihood import target_nll

BATCH_TOKENS = 1024  # more were slower on a CPU
LOGITS = 2**25  # numbers: 64 MiB in bfloat16


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """An answer to one row has no free text; it comes with the loss of the row's target."""

    text: str  # a label or choice, tags with spaces between them, or a number
    nll: float  # of the target, nats; NaN where the row has none
    scores: tuple[float, ...] | None = None


def answer(
    lm: LanguageModel,
    encoder: Encoder,
    batch: Batch,
    injection: Injection,
    context: Context | None,
    rows: Sequence[Example],
) -> list[RowAnswer]:
    """Return the likeliest label or choice of each row, the tags of its words, or its number."""
    read = {"token-classification": _tags, "regression": _numbers}.get(encoder.kind, _choices)
    with torch.no_grad():
        return read(lm, encoder, batch, injection, context, rows)


def _choices(lm, encoder, batch, injection, context, rows: Sequence[Example]) -> list[RowAnswer]:
    scores = score_candidates(lm, batch, injection, context, [e.candidates or () for e in rows])
    answers = []
    for example, row in zip(rows, scores, strict=True):
        names = encoder.labels or example.rendered.choices or ()
        best = max(range(len(row)), key=row.__getitem__)
        target = (example.candidates or ()).index(example.target_ids) if example.target_ids else -1
        answers.append(RowAnswer(names[best], -row[target] if target >= 0 else math.nan, tuple(row)))
    return answers


def _tags(lm, encoder, batch, injection, context, rows: Sequence[Example]) -> list[RowAnswer]:
    scores = lm.logits(batch, injection, context).float().log_softmax(-1)  # [B, T, tags], right-aligned
    answers = []
    for example, row in zip(rows, scores, strict=True):
        row = row[len(row) - len(example.places) :]
        names = [encoder.labels[i] for i in row.argmax(-1).tolist()]
        right = torch.tensor(example.target_ids, device=row.device)
        nll = -row.gather(1, right[:, None]).sum().item() if example.target_ids else math.nan
        answers.append(RowAnswer(" ".join(names), nll))
    return answers


def _numbers(lm, encoder, batch, injection, context, rows: Sequence[Example]) -> list[RowAnswer]:
    numbers = lm.logits(batch.with_targets([[0]] * batch.size), injection, context)[:, 0, 0].tolist()
    # the log-likelihood of a normal distribution of variance 1 around the number, up to a constant
    losses = (
        math.nan if e.value is None else (x - e.value) ** 2 / 2 for x, e in zip(numbers, rows, strict=True)
    )
    return [RowAnswer(f"{number:.6g}", nll) for number, nll in zip(numbers, losses, strict=True)]


@torch.no_grad()
def score_candidates(
    lm: LanguageModel,
    batch: Batch,
    injection: Injection,
    context: Context | None,
    candidates: Sequence[Sequence[Sequence[int]]],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[float]]:
    """Return the log-probability (nats) of each row's candidates, over all their tokens.

    Candidates of one token, and words at masks, are read off one set of logits, since none of their tokens
    is fed back. Longer ones share the keys and values of the input and of the soft tokens after it.
    """
    longest = max(len(ids) for row in candidates for ids in row)
    if longest == 1 or lm.answers == "mask":
        first = batch.with_targets([[0] * longest] * batch.size)
        logits, at, results = lm.logits(first, injection, context)[:, -longest:], range(longest), []
        for row, scores in zip(candidates, logits, strict=True):
            exact = scores.float().log_softmax(-1)  # [T, V] of one row: a batch's would be large
            results.append([exact[at, ids].sum().item() for ids in row])
        return results
    flat: list[float] = []
    for chunk, logits in candidate_logits(
        lm, batch, injection, context, candidates, batch_tokens=batch_tokens
    ):
        flat += (-target_nll(logits, chunk)).tolist()
    values = iter(flat)
    return [[next(values) for _ in row] for row in candidates]


@torch.no_grad()
def candidate_logits(
    lm: LanguageModel,
    batch: Batch,
    injection: Injection,
    context: Context | None,
    candidates: Sequence[Sequence[Sequence[int]]],
    *,
    batch_tokens: int = BATCH_TOKENS,
    batch_rows: int | None = None,
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield (rows with their candidates as targets, logits [B, T, V]); all candidates of a row in order.

    They share the keys and values of the input, where `context` has them, and of the soft tokens after it.
    """
    pairs = [(i, ids) for i, row in enumerate(candidates) for ids in row]
    longest = max(len(ids) for _, ids in pairs)
    width = batch.input_ids.shape[1]
    batch, injection, context = lm.advanced(batch, injection, context)
    # as many as keep both their columns and their logits small
    limit = min(batch_tokens, LOGITS // lm.spec.vocab_size * (width + longest) // longest)
    for together in by_tokens(range(len(pairs)), [width + len(ids) for _, ids in pairs], limit):
        most = batch_rows or len(together)
        for start in range(0, len(together), most):
            part = [pairs[k] for k in together[start : start + most]]
            rows = torch.tensor([i for i, _ in part], device=lm.device)
            chunk = batch.select(rows).with_targets([ids for _, ids in part])
            one_for_all = all(part.mask.shape[0] == 1 for part in injection.channels().values())
            chosen = injection if one_for_all else injection.fit(batch.size).select(rows)
            yield chunk, lm.logits(chunk, chosen, None if context is None else context.select(rows))
