"""Log-likelihoods of continuations are computed, in batches whose rows do not affect each other.

This file knows token ids, a model and a method. It knows nothing of `lm_eval`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.batching import by_tokens
from ..data.collate import Batch, batch_of_ids
from ..data.tokens import Ids
from ..evaluation.row_answers import BATCH_TOKENS, candidate_logits
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from .arguments import Subject

GPU_TOKENS = 16 * BATCH_TOKENS


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair is an input and the tokens that follow it; vectors placed after an input are between the two."""

    input_ids: Ids
    target_ids: Ids
    scored: int  # how many of the target's last tokens count
    text: str = ""  # the input as text, for prefix models with a tokenizer of their own


Likelihood = tuple[float, bool]  # log-probability (nats), and whether each token is the likeliest


@torch.no_grad()
def likelihoods(
    subject: Subject,
    pairs: Sequence[Pair],
    batch_rows: int | None,
    done: Callable[[Sequence[int], Sequence[Likelihood]], None],
) -> None:
    """Compute the likelihood of each pair; `done` gets the numbers of pairs, and their results, as they come.

    Pairs with the same input share one pass over it. `batch_rows` is the most rows of a batch; None: as many
    as are fast.
    """
    lm, method = subject.lm, subject.method
    groups: dict[tuple[Ids, str], list[int]] = {}
    for number, pair in enumerate(pairs):
        groups.setdefault((pair.input_ids, pair.text), []).append(number)
    # the longest first, so that a lack of memory shows at once
    order = sorted(groups.items(), key=lambda item: (-len(item[0][0]), item[0][0]))
    lengths = [len(ids) + max(len(pairs[i].target_ids) for i in rows) for (ids, _), rows in order]
    for part in parts(range(len(order)), lengths, lm, batch_rows):
        inputs, rows = zip(*(order[i] for i in part), strict=True)
        batch = batch_of_ids(
            [ids for ids, _ in inputs], prompts=[subject.prompt] * len(inputs), device=lm.device
        )
        batch = replace(batch, texts=tuple(text for _, text in inputs))
        injection = injection_for(lm, method, batch)
        shared = any(len(numbers) > 1 for numbers in rows)
        context = lm.context(batch, injection) if shared else None
        targets = [[pairs[i].target_ids for i in numbers] for numbers in rows]
        numbers = iter([i for group in rows for i in group])
        limits = {"batch_tokens": tokens_of_batch(lm), "batch_rows": batch_rows}
        for chunk, logits in candidate_logits(lm, batch, injection, context, targets, **limits):
            numbered = [next(numbers) for _ in range(chunk.size)]
            done(numbered, _read(logits, chunk, [pairs[i].scored for i in numbered]))


def parts(
    order: Sequence[int], lengths: Sequence[int], lm: LanguageModel, batch_rows: int | None
) -> Iterator[list[int]]:
    """Yield batches of rows in `order`: of `batch_rows`, or of as many tokens as are fast."""
    if batch_rows is None:
        yield from by_tokens(order, lengths, tokens_of_batch(lm))
        return
    for start in range(0, len(order), batch_rows):
        yield list(order[start : start + batch_rows])


def tokens_of_batch(lm: LanguageModel) -> int:
    """Return how many tokens a batch has by default."""
    return BATCH_TOKENS if lm.device.type == "cpu" else GPU_TOKENS


def _read(logits: Tensor, batch: Batch, scored: Sequence[int]) -> list[Likelihood]:
    """Read off logits [B, T, V] the likelihood of the last `scored` targets of each row."""
    results = []
    for row, ids, count in zip(logits, batch.target_ids, scored, strict=True):
        # one row at a time: a float32 copy of a batch's logits would be large
        last, right = row[len(row) - count :].float(), ids[len(ids) - count :]
        exact = last.log_softmax(-1).gather(1, right[:, None]).sum().item()
        results.append((exact, bool((last.argmax(-1) == right).all())))
    return results
