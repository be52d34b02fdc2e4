"""A teacher's distributions at the tokens of answers are kept, of the k likeliest tokens.

A row is [ids [T, k], log-probabilities [T, k]]. The inputs here are the teacher's own, with its text in
front. What they all begin with is computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from ..data.collate import batch_of_ids
from ..data.example import Example
from ..lm.base import LanguageModel
from ..lm.context import Context
from ..lm.divergence import top_k
from .base import Row
from .keys import about, key_of, name_of_ids
from .kv import common_beginning, context_of


@final
class TeacherDistributions:
    """Compute distributions of the plain model, as a `cache.base.Constant`."""

    content = "the teacher's distributions"

    def __init__(self, lm: LanguageModel, examples: Sequence[Example], k: int) -> None:
        self.lm, self.k = lm, k
        self.ahead = common_beginning(lm, examples) if "cache" not in lm.spec.limits else ()

    @property
    def key(self) -> str:
        """Identify the base (every weight of it), its precision and the number of tokens kept."""
        return key_of(about(self.lm), teacher=self.k)

    @cached_property
    def beginning(self) -> Context | None:
        """Compute the context of the common beginning, one row: mostly the teacher's text."""
        return context_of(self.lm, self.ahead)

    def name(self, example: Example) -> str:
        return f"{name_of_ids(example.input_ids)}-{name_of_ids(example.target_ids)}"

    def tokens(self, example: Example) -> int:
        return len(example.input_ids) - len(self.ahead) + len(example.target_ids)

    def bytes_needed(self, examples: Iterable[Example]) -> int:
        return sum(len(e.target_ids) for e in examples) * self.k * 8

    @torch.no_grad()
    def compute(self, examples: Sequence[Example]) -> list[Row]:
        inputs = [e.input_ids[len(self.ahead) :] for e in examples]
        batch = batch_of_ids(inputs, [e.target_ids for e in examples], device=self.lm.device)
        context = None
        if "cache" not in self.lm.spec.limits:
            context = self.lm.prefill(batch, None, self.beginning)
        logits = self.lm.logits(batch, None, context)
        return [self._row(row, mask) for row, mask in zip(logits, batch.target_mask, strict=True)]

    def _row(self, logits: Tensor, mask: Tensor) -> Row:
        ids, logprobs = top_k(logits[mask], self.k)
        return [ids.to(torch.int32).cpu(), logprobs.cpu()]

    def assemble(self, rows: Sequence[Row]) -> list[tuple[Tensor, Tensor]]:
        """Return each row's ids and log-probabilities."""
        return [(ids.long(), logprobs) for ids, logprobs in rows]
