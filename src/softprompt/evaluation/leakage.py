"""Measures whether a prompt affects unrelated text: the loss on such text with and without the prompt.

Definitions are in docs/measures-control.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..data.collate import Batch, batch_of_ids
from ..errors import SoftPromptError
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..methods.base import SoftPrompt
from ..methods.none import NoPrompt
from .likelihood import target_nll
from .metric_intervals import Score, share
from .unrelated_text import TEXT

ROWS = 16  # chunks of one pass
LEAD, CHUNK = 16, 64  # tokens of unrelated text: read ahead of the loss, and in all


@dataclass(frozen=True, slots=True)
class Leakage:
    """The change that a prompt makes to the loss on unrelated text, in nats a token (below 0: it falls)."""

    change: Score  # mean over tokens and prompts; interval over chunks, n tokens
    plain: float  # nats a token without the prompt
    chunks: int
    prompts: int


@torch.no_grad()
def leakage(
    lm: LanguageModel,
    method: SoftPrompt,
    text: str | None = None,
    *,
    prompts: Sequence[int] | None = None,
    plain: LanguageModel | None = None,
    base: Sequence[float] | None = None,
    chunk: int = CHUNK,
    lead: int = LEAD,
) -> Leakage:
    """Compute the loss on `text` (default: a page of prose) in chunks, with each of `prompts` and without.

    A chunk's first `lead` tokens are the input, with the prompt at its usual place; the others are the
    target. `plain` is the base before training, if it was trained too (lora, full), or `base` its losses
    (`plain_losses`). Raises SoftPromptError
    for a model that does not predict text, and a text without two chunks.
    """
    chunks = _chunks(lm, text, chunk, lead)
    chosen = range(method.num_prompts) if prompts is None else prompts
    base = _losses(plain or lm, NoPrompt(1), chunks, lead, 0) if base is None else base
    losses = [_losses(lm, method, chunks, lead, prompt) for prompt in chosen]
    change = [sum(row) / len(row) - before for before, *row in zip(base, *losses, strict=True)]
    tokens = [chunk - lead] * len(chunks)
    return Leakage(share(change, tokens), sum(base) / sum(tokens), len(chunks), len(losses))


@torch.no_grad()
def plain_losses(
    lm: LanguageModel, text: str | None = None, *, chunk: int = CHUNK, lead: int = LEAD
) -> list[float]:
    """Compute the loss of each chunk without a prompt, in nats, as `leakage` does. Raises as it does."""
    return _losses(lm, NoPrompt(1), _chunks(lm, text, chunk, lead), lead, 0)


def _chunks(lm: LanguageModel, text: str | None, chunk: int, lead: int) -> list[list[int]]:
    """Cut the text into chunks of token ids."""
    if lm.answers != "next":
        raise SoftPromptError(
            "leakage is measured on models that predict text",
            why="this one fills in masks or answers by a head",
            fix="leave leakage out for it",
        )
    ids = lm.text_ids(TEXT if text is None else text)
    chunks = [ids[start : start + chunk] for start in range(0, len(ids) - chunk + 1, chunk)]
    if not 0 < lead < chunk or len(chunks) < 2:
        raise SoftPromptError(
            f"the unrelated text gives {len(chunks)} chunks of {chunk} tokens ({lead} of them read first)",
            why="an interval over chunks needs two",
            fix="give a longer text, or a smaller chunk",
        )
    return chunks


def _losses(
    lm: LanguageModel, method: SoftPrompt, chunks: Sequence[Sequence[int]], lead: int, prompt: int
) -> list[float]:
    """Return the loss of each chunk's target under the prompt, in nats."""
    losses = []
    for start in range(0, len(chunks), ROWS):
        batch = _batch(lm, chunks[start : start + ROWS], lead, prompt)
        losses += target_nll(lm.logits(batch, injection_for(lm, method, batch)), batch).tolist()
    return losses


def _batch(lm: LanguageModel, chunks: Sequence[Sequence[int]], lead: int, prompt: int) -> Batch:
    inputs = [ids[:lead] for ids in chunks]
    batch = batch_of_ids(inputs, [ids[lead:] for ids in chunks], [prompt] * len(chunks), lm.device)
    assert lm.tokenizer is not None  # it gave the ids
    return replace(batch, texts=tuple(lm.tokenizer.decode(list(ids)) for ids in inputs))
