"""Label probabilities of a classification prompt are computed in jobs that fit between two steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from ..artifacts.arithmetic import scale
from ..data.batching import by_tokens
from ..data.collate import collate
from ..data.example import Example
from ..data.tokens import Ids
from ..evaluation.row_answers import BATCH_TOKENS, score_candidates
from ..injection import Injection
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from .failures import not_finite
from .label_scores import Row, check_kind, encoded, probabilities
from .registry import Loaded

Part = tuple[int, tuple[Ids, ...]]  # a row's number, and some of its candidates
Scores = dict[str, float]


def classified(
    loaded: Loaded, rows: Sequence[Row], strength: float = 1.0
) -> tuple[list[Callable[[], list[list[float]]]], Callable[[list[list[float]]], list[Scores]]]:
    """Split the work for the rows into jobs of about one pass; return them, and a function of their results.

    The function takes the jobs' results, concatenated, and returns each row's labels (or choices) with their
    probabilities. Raises InvalidRequest for a prompt that does not choose among labels, and what encoding a
    row raises.
    """
    lm, encoder = loaded.tuned.lm, loaded.encoder
    check_kind(loaded.name, encoder.kind)
    name = encoder.prompts[loaded.index]
    examples = encoded(encoder, rows, name)
    parts = [part for number, example in enumerate(examples) for part in _parts(number, example)]
    costs = [_cost(examples[number], candidates) for number, candidates in parts]
    jobs = [
        partial(_scores, lm, loaded, [(examples[parts[i][0]], parts[i][1]) for i in numbers], strength)
        for numbers in by_tokens(range(len(parts)), costs, BATCH_TOKENS)
    ]

    def combined(results: list[list[float]]) -> list[Scores]:
        scores: list[list[float]] = [[] for _ in examples]
        for (number, _), some in zip(parts, results, strict=True):
            scores[number] += some
        names = [encoder.labels or example.rendered.choices or () for example in examples]
        return [probabilities(*pair) for pair in zip(names, scores, strict=True)]

    return jobs, combined


def _parts(number: int, example: Example) -> Iterator[Part]:
    """Split its candidates into passes, so that the engine's other requests wait for one pass at most."""
    candidates = example.candidates or ()
    longest = max(map(len, candidates))
    most = len(candidates) if longest == 1 else max(1, BATCH_TOKENS // (len(example.input_ids) + longest))
    for start in range(0, len(candidates), most):
        yield number, candidates[start : start + most]


def _cost(example: Example, candidates: Sequence[Ids]) -> int:
    """Count the positions that are run; candidates of one token need none beyond the input's."""
    longest = max(map(len, candidates))
    rows = 1 if longest == 1 else len(candidates)
    return rows * (len(example.input_ids) + longest)


def _scores(
    lm: LanguageModel, loaded: Loaded, rows: Sequence[tuple[Example, Sequence[Ids]]], strength: float
) -> list[list[float]]:
    batch = collate([example for example, _ in rows], lm.device, targets=False)
    with torch.no_grad():
        injection = injection_for(lm, loaded.tuned.method, batch) if strength else Injection()
        if strength not in (0, 1):
            injection = scale(injection, strength, lm)
        context = lm.context(batch, injection)
        scores = score_candidates(lm, batch, injection, context, [candidates for _, candidates in rows])
    if not all(math.isfinite(score) for row in scores for score in row):
        raise not_finite()
    return scores
