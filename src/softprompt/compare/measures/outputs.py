"""Computes outputs of the same rows under different prompts: tokens, texts, likelihoods, and their shares.

A control measurement runs its rows through the model several times; only the injection changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from ...data.collate import collate
from ...data.example import Example
from ...evaluation.evaluator import Evaluator
from ...evaluation.likelihood import target_nll
from ...evaluation.writing import written as tokens_of_rows
from ...lm.apply import injection_for
from ...lm.base import LanguageModel
from ...lm.generation import answering
from ...methods.base import SoftPrompt

Ids = tuple[int, ...]
ROWS = 16  # of one pass


def under(examples: Sequence[Example], prompt: int) -> list[Example]:
    """Return the same rows, all under one prompt."""
    return [replace(example, prompt=prompt) for example in examples]


def written(evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example]) -> list[Ids]:
    """Generate token ids greedily for each row under its prompt, up to and with the end token.

    `evaluator` holds the largest number of tokens, and other options of `generate`.
    """
    lm = evaluator.lm
    outputs: list[Ids] = [()] * len(examples)
    options = answering(lm, evaluator.max_new_tokens, **evaluator.generate_options)
    for numbers, batch in tokens_of_rows(lm, method, examples, [*_alike(examples)], options):
        for i, ids in zip(numbers, batch, strict=True):
            end = next((n + 1 for n, token in enumerate(ids) if token in lm.ends), len(ids))
            outputs[i] = tuple(ids[:end])
    return outputs


def texts(evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example]) -> list[str]:
    """Generate the answer to each row under its prompt."""
    return [evaluator.encoder.decode(ids) for ids in written(evaluator, method, examples)]


@torch.no_grad()
def likelihoods(
    lm: LanguageModel, method: SoftPrompt, examples: Sequence[Example], outputs: Sequence[Ids]
) -> list[float]:
    """Compute the log-probability (nats a token) of each row's output under its prompt."""
    means = [0.0] * len(examples)
    for numbers in _alike(examples):
        batch = collate([examples[i] for i in numbers], lm.device, targets=False)
        batch = batch.with_targets([outputs[i] for i in numbers])
        losses = target_nll(lm.logits(batch, injection_for(lm, method, batch)), batch).tolist()
        for i, loss in zip(numbers, losses, strict=True):
            means[i] = -loss / len(outputs[i])
    return means


def closeness(text: str, references: Sequence[str]) -> float:
    """Return the sentence chrF to the nearest reference, 0 … 100."""
    from sacrebleu.metrics.chrf import CHRF

    return max(CHRF().sentence_score(text, [reference]).score for reference in references)


def _alike(examples: Sequence[Example]) -> Iterator[list[int]]:
    """Yield the numbers of rows in batches of similar lengths."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids))
    for start in range(0, len(order), ROWS):
        yield order[start : start + ROWS]
