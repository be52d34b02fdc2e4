"""Texts are written behind a long beginning that all inputs share, which is computed once.

The beginning (a system prompt, a document) is put in as keys and values. Where that would not be exact, as
beyond a sliding window, each input is read whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import torch

from ..cache.kv import beginning
from ..data.batching import by_tokens
from ..data.collate import collate
from ..data.example import Example
from ..injection import Injection, Prefix
from ..lm.base import LanguageModel
from ..lm.generation import answering, tokens_of

BATCH_TOKENS = 4096  # of inputs and answers, padding included
WORTH_SHARING = 256  # tokens that are saved; a pass of its own costs about as much
EXACT = 0.003  # nats: rounding in bfloat16


@final
class Beginnings:
    """Writes texts with one model, and remembers for how long a beginning keys and values are exact."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self._exact, self._inexact = 0, sys.maxsize  # tokens of a beginning for which this is known

    def texts(
        self, examples: Sequence[Example], new_tokens: int, **options: Any
    ) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Yield batches of written tokens, each with the indices of its examples; short ones come first.

        `options` are those of `generate`: by default greedy, up to an end token or `new_tokens`.
        """
        ahead, injection = self._ahead(examples)
        rest = [replace(e, input_ids=e.input_ids[len(ahead) :]) for e in examples]
        lengths = [len(e.input_ids) + new_tokens for e in rest]
        order = sorted(range(len(rest)), key=lengths.__getitem__)
        chosen = answering(self.lm, new_tokens, **options)
        for rows in by_tokens(order, lengths, BATCH_TOKENS):
            batch = collate([rest[i] for i in rows], self.lm.device, targets=False)
            with torch.no_grad():
                yield rows, tokens_of(self.lm.generate(batch, injection, **chosen)).tolist()

    def _ahead(self, examples: Sequence[Example]) -> tuple[tuple[int, ...], Injection | None]:
        """Return the beginning that is put in as keys and values, and these; none where it does not pay."""
        lm = self.lm
        if lm.spec.kind != "decoder" or not lm.shares_beginnings or len(examples) < 2:
            return (), None
        ids = beginning([e.input_ids for e in examples])
        if (len(examples) - 1) * len(ids) < WORTH_SHARING or len(ids) >= self._inexact:
            return (), None
        injection = as_prefix(lm, ids)
        if len(ids) > self._exact:
            if not _is_exact(lm, examples[0], ids, injection):
                self._inexact = len(ids)
                return (), None
            self._exact = len(ids)
        return ids, injection


def as_prefix(lm: LanguageModel, ids: Sequence[int]) -> Injection:
    """Return the keys and values of these tokens as a prefix of every row."""
    layers = lm.kv_of(ids)
    return Injection(kv_before=Prefix(layers, torch.ones(1, len(ids), dtype=torch.bool, device=lm.device)))


@torch.no_grad()
def _is_exact(lm: LanguageModel, example: Example, ids: Sequence[int], injection: Injection) -> bool:
    """Compare the distribution of the next token behind the whole input and behind the prefix."""
    rest = replace(example, input_ids=example.input_ids[len(ids) :])
    whole, through = (
        lm.logits(collate([e], lm.device, targets=False).with_targets([[0]]), given)[0, 0]
        .float()
        .log_softmax(0)
        for e, given in ((example, None), (rest, injection))
    )
    return bool((whole.exp() * (whole - through)).sum() < EXACT)
