"""Tokens are sampled from logits, greedy ones for all sequences at once.

Each other sequence draws one number per token from its own generator, and takes the token at which the
cumulated probability passes it. So an answer depends on its seed and logits, not on its neighbours.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from .request import Sampling

LARGEST = 1e30  # limit of a penalised score: the difference of two infinite ones is not a number
LEAST = -9999.0  # OpenAI's value for a log-probability of minus infinity, which JSON does not have
Likely = tuple[float, tuple[tuple[int, float], ...]]  # a token's log-probability, and the likeliest tokens'


@final
@dataclass(slots=True)
class Chooser:
    """Chooses the tokens of one answer."""

    sampling: Sampling
    ends: Collection[int]  # ids of end tokens
    read: Collection[int] = ()  # ids of the input, for a penalty on repeating them
    counts: Counter[int] = field(default_factory=Counter)  # of the tokens chosen so far
    length: int = 0  # how many tokens were chosen
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.sampling.seed)

    @property
    def plain(self) -> bool:
        s = self.sampling
        changed = s.repetition_penalty != 1 or s.logit_bias or s.frequency_penalty or s.presence_penalty
        return s.temperature == 0 and not (changed or self._held)

    @property
    def _held(self) -> bool:
        """True while end tokens are not allowed yet."""
        return self.length < self.sampling.min_tokens

    def choose(self, logits: Tensor) -> int:
        """Choose the next token by its logits [V]."""
        scores = self._changed(logits.float())
        if self.sampling.temperature == 0:
            return int(scores.argmax())
        ahead = scores.double() - scores.max()  # at most 0, so that no low temperature makes it infinite
        probabilities, ids = _kept((ahead / self.sampling.temperature).softmax(-1).float(), self.sampling)
        cumulated = probabilities.double().cumsum(-1)
        number = self.random.random() * float(cumulated[-1])
        at = min(int(torch.searchsorted(cumulated, number, right=True)), len(cumulated) - 1)
        return at if ids is None else int(ids[at])

    def note(self, token: int) -> None:
        self.counts[token] += 1
        self.length += 1

    def _changed(self, scores: Tensor) -> Tensor:
        s = self.sampling
        scores = scores.clone()
        if s.repetition_penalty != 1 and (seen := {*self.read, *self.counts}):
            ids = torch.tensor(sorted(seen), device=scores.device)
            at, by = scores[ids].double(), s.repetition_penalty
            scores[ids] = torch.where(at < 0, at * by, at / by).clamp(-LARGEST, LARGEST).float()
        if (s.frequency_penalty or s.presence_penalty) and self.counts:
            ids = torch.tensor(list(self.counts), device=scores.device)
            times = torch.tensor(list(self.counts.values()), dtype=scores.dtype, device=scores.device)
            scores[ids] -= s.frequency_penalty * times + s.presence_penalty
        if s.logit_bias:
            ids = torch.tensor(list(s.logit_bias), device=scores.device)
            scores[ids] += torch.tensor(list(s.logit_bias.values()), dtype=scores.dtype, device=scores.device)
        if self._held and self.ends:
            scores[list(self.ends)] = -torch.inf
        return scores


def _kept(probabilities: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """Keep the `top_k` likeliest tokens, and of them the fewest whose probabilities reach `top_p`.

    Returns probabilities and ids; ids are None where all tokens are kept, in their own order.
    """
    size = len(probabilities)
    most = min(sampling.top_k or size, size)
    if most == size and sampling.top_p >= 1:
        return probabilities, None
    values, ids = probabilities.topk(min(most, 1024))  # usually enough, and sorting all of them is slow
    if sampling.top_p < 1:
        whole = probabilities.sum() if most == size else probabilities.topk(most).values.sum()
        if len(values) < most and values.sum() < sampling.top_p * whole:
            values, ids = probabilities.topk(most)
        ahead = values.cumsum(-1) - values
        values = values[: max(1, int((ahead < sampling.top_p * whole).sum()))]  # the likeliest stays
    elif len(values) < most:
        values, ids = probabilities.topk(most)
    return values, ids[: len(values)]


def choose(logits: Tensor, choosers: Sequence[Chooser]) -> list[int | None]:
    """Choose the next token of each sequence by logits [B, V]; None where they are not finite."""
    largest, best = logits.max(-1)  # max treats NaN as the largest number
    likeliest, finite = best.tolist(), largest.isfinite().tolist()
    return [
        None if not fine else token if chooser.plain else chooser.choose(row)
        for row, token, fine, chooser in zip(logits, likeliest, finite, choosers, strict=True)
    ]


def likelihoods(logits: Tensor, tokens: Sequence[int], most: int) -> list[Likely]:
    """Return the log-probability of each row's token by logits [N, V], and the `most` likeliest tokens."""
    exact = logits.float().log_softmax(-1).clamp(min=LEAST)
    chosen = exact.gather(1, torch.tensor(tokens, device=exact.device)[:, None])[:, 0].tolist()
    values, ids = exact.topk(min(most, exact.shape[1]))
    tops = zip(ids.tolist(), values.tolist(), strict=True)
    return [(value, tuple(zip(*top, strict=True))) for value, top in zip(chosen, tops, strict=True)]
