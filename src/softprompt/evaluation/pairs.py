"""Pairs of answers under a prompt: their log-probabilities, and the implicit rewards of DPO.

    reward(y) = beta * (log p(y|x) - log p_ref(y|x))        (Rafailov et al. 2023, section 4)

The reference p_ref is the base model without vectors, and without adapters where it has been trained too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..data.collate import Batch
from ..data.example import Example
from ..errors import SoftPromptError
from ..injection import Injection
from ..lm.base import LanguageModel
from ..lm.context import Context
from .row_answers import score_candidates

Pair = tuple[float, float]  # of the chosen answer, and of the rejected one


def log_probabilities(
    lm: LanguageModel,
    batch: Batch,
    injection: Injection,
    context: Context | None,
    examples: Sequence[Example],
) -> list[Pair]:
    """Return the log-probability (nats) of both answers of each pair, over all their tokens."""
    scores = score_candidates(lm, batch, injection, context, [e.answers for e in examples])
    return [(chosen, rejected) for chosen, rejected in scores]


def rewards(scores: Pair, example: Example, beta: float) -> Pair:
    """Return the implicit rewards of both answers from their log-probabilities."""
    if example.reference is None:
        raise ValueError("the pair has no reference log-probabilities")
    chosen, rejected = (beta * (x - y) for x, y in zip(scores, example.reference, strict=True))
    return chosen, rejected


def loss(rewards: Pair) -> float:
    """Return DPO's loss of a pair: -log sigmoid(chosen - rejected), in nats."""
    margin = rewards[0] - rewards[1]
    return math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0)


def no_reference() -> SoftPromptError:
    """Return the error for pairs that are scored on a base whose weights were replaced."""
    return SoftPromptError(
        "these pairs cannot be scored: their reference is the base model before training",
        why="base=full has replaced its weights, and the artifact holds the new ones alone",
        fix="read the dev metrics in softprompt.json, or train with base=lora, which keeps the base",
    )
