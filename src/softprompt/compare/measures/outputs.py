"""Computes outputs of the same rows under different prompts: tokens, texts, likelihoods, and their shares.

A control measurement runs its rows through the model several times; only the injection changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from ...data.collate import collate
from ...data.example import Example
from ...evaluation.evaluator import Evaluator
from ...evaluation.likelihood import target_nll
from ...evaluation.metric_intervals import Score
from ...lm.apply import injection_for
from ...lm.base import LanguageModel
from ...lm.generation import answering, tokens_of
from ...methods.base import SoftPrompt

Ids = tuple[int, ...]
ROWS = 16  # of one pass
RESAMPLES = 1000


def under(examples: Sequence[Example], prompt: int) -> list[Example]:
    """Return the same rows, all under one prompt."""
    return [replace(example, prompt=prompt) for example in examples]


def written(evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example]) -> list[Ids]:
    """Generate token ids greedily for each row under its prompt, up to and with the end token.

    `evaluator` holds the largest number of tokens, and other options of `generate`.
    """
    lm, outputs = evaluator.lm, [()] * len(examples)
    options = answering(lm, evaluator.max_new_tokens, **evaluator.generate_options)
    for numbers in _alike(examples):
        batch = collate([examples[i] for i in numbers], lm.device, targets=False)
        with torch.no_grad():
            injection = injection_for(lm, method, batch)
        for i, ids in zip(numbers, tokens_of(lm.generate(batch, injection, **options)).tolist(), strict=True):
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


def share(hits: Sequence[float], of: Sequence[float] | None = None, seed: int = 0) -> Score:
    """Return Σ hits / Σ of (default: 1 each), with the 95 % percentile bootstrap over rows; `n` is Σ of.

    It is NaN for no rows. If all rows agree, all resamples agree, and the interval is a point.
    """
    pairs = np.stack([np.asarray(hits, np.float64), np.ones(len(hits)) if of is None else np.asarray(of)], 1)
    if not len(pairs) or not pairs[:, 1].sum():
        return Score(np.nan, np.nan, np.nan, 0)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)), size=RESAMPLES)
    sums = counts @ pairs  # [resamples, 2]
    drawn = sums[sums[:, 1] > 0]
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5], method="nearest")
    total = pairs.sum(0)
    return Score(float(total[0] / total[1]), float(low), float(high), round(total[1]))


def _alike(examples: Sequence[Example]) -> Iterator[list[int]]:
    """Yield the numbers of rows in batches of similar lengths."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids))
    for start in range(0, len(order), ROWS):
        yield order[start : start + ROWS]
