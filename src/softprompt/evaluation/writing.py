"""Answers are written as tokens: by continuous batching where it gives the same ones, else in padded batches.

Of rows under one prompt that begin with the same tokens, the beginning is run once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from ..cache import InputCache
from ..cache.kv import beginning
from ..data.batching import by_tokens
from ..data.collate import collate
from ..data.example import Example
from ..injection import Injection, injection_rows
from ..lm import decoding
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.causal import WORTH_A_PASS, CausalLM
from ..lm.context import Context
from ..lm.generation import tokens_of
from ..lm.joining import Joining
from ..methods.base import SoftPrompt

READ_TOKENS = 1024  # of inputs whose injection is computed at once


def written(
    lm: LanguageModel,
    method: SoftPrompt,
    examples: Sequence[Example],
    batches: Sequence[Sequence[int]],
    options: Mapping[str, Any],
    *,
    cache: InputCache | None = None,
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Yield numbers of examples and their new tokens, in any order.

    `batches` are the numbers of the rows to answer, and the padded batches in which `generate` gets them
    where continuous batching would not be exact. `options` are those of `generate`. What follows an answer's
    end token is padding. `cache`, where given, holds the features of exactly these examples.
    """
    cache = cache or InputCache()
    if isinstance(lm, CausalLM) and decoding.suits(lm, options):
        lm.check_attention()
        numbers = [i for part in batches for i in part]
        rows = _rows(lm, method, examples, numbers, options["max_new_tokens"], cache)
        for number, ids in decoding.decode(lm, rows):
            yield [number], [ids]
        return
    for part in batches:
        numbers = list(part)
        with torch.no_grad():
            batch = cache.fill(
                collate([examples[i] for i in numbers], lm.device, targets=False), numbers, method.reads
            )
            injection = injection_for(lm, method, batch)
            output = lm.generate(batch, injection, **options)
        yield numbers, tokens_of(output).tolist()


@torch.no_grad()
def _rows(
    lm: CausalLM,
    method: SoftPrompt,
    examples: Sequence[Example],
    numbers: Sequence[int],
    new_tokens: int,
    cache: InputCache,
) -> Iterator[tuple[int, Joining]]:
    """Yield rows to decode, those of a prompt after each other, short ones first."""
    lengths = [len(e.input_ids) for e in examples]
    by_prompt: dict[int, list[int]] = {}
    for i in numbers:
        by_prompt.setdefault(examples[i].prompt, []).append(i)
    for rows in by_prompt.values():
        rows.sort(key=lengths.__getitem__)
        known: Context | None = None
        for part in by_tokens(rows, lengths, READ_TOKENS):
            batch = collate([examples[i] for i in part], lm.device, targets=False)
            singles = _singles(injection_for(lm, method, cache.fill(batch, part, method.reads)), len(part))
            if part[0] == rows[0]:
                known = _known(lm, method, [examples[i] for i in rows], singles[0])
            for i, single in zip(part, singles, strict=True):
                yield i, decoding.joining(lm, examples[i].input_ids, single, new_tokens, known)


def _singles(injection: Injection, rows: int) -> list[Injection]:
    """Split an injection into those of its rows; one of one row is every row's."""
    if injection_rows(injection) == 1:
        return [injection] * rows
    return [injection.select(torch.tensor([row])) for row in range(rows)]


def _known(
    lm: CausalLM, method: SoftPrompt, examples: Sequence[Example], injection: Injection
) -> Context | None:
    """Compute the keys and values of what all rows of a prompt begin with; None where it does not pay."""
    ahead = {"before", "kv_before", "adapter"} & set(injection.channels())
    if len(examples) < 2 or not lm.shares_beginnings or (ahead and method.reads is not None):
        return None
    same = beginning([e.input_ids for e in examples])
    soft = 0 if injection.before is None else int(injection.before.mask.sum())
    if (len(examples) - 1) * (soft + len(same)) < WORTH_A_PASS:
        return None
    return decoding.beginning(lm, same, injection)
