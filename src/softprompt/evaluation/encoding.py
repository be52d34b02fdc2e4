"""Texts become vectors under a prompt, a few at a time, so that memory does not grow with the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.encode import Encoder
from ..data.example import Example
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.contrastive import unit
from ..methods.base import SoftPrompt
from .retrieval import vectors_of
from .row_answers import BATCH_TOKENS


def encoded(
    encoder: Encoder,
    texts: Sequence[str | Mapping[str, Any]],
    *,
    document: bool = False,
    prompt: str | None = None,
) -> list[Example]:
    """Encode texts, or rows, as queries or as documents, under the prompt called `prompt`.

    Raises SoftPromptError for an empty text, which it names.
    """
    for number, text in enumerate(texts):
        if isinstance(text, str) and not text.strip():
            raise SoftPromptError(
                f"text {number} (counted from 0) is empty", fix="leave it out, or give it a text"
            )
    if document:
        return [encoder.encode_document(text, prompt=prompt) for text in texts]
    return [encoder.encode(text, with_target=False, prompt=prompt) for text in texts]


def vectors(
    lm: LanguageModel,
    method: SoftPrompt,
    examples: Sequence[Example],
    *,
    batch_tokens: int = BATCH_TOKENS,
    normalize: bool = True,
) -> Tensor:
    """Return the vectors [N, H] of encoded texts, float32 on the CPU; of length 1 with `normalize`.

    Raises SoftPromptError for vectors that are no numbers.
    """
    if not examples:
        return torch.zeros(0, lm.spec.hidden_size)
    result = vectors_of(lm, method, examples, batch_tokens)
    if lost := [number for number, row in enumerate(result.isfinite().all(1).tolist()) if not row]:
        raise SoftPromptError(
            f"the vector of text {lost[0]} (counted from 0) is not finite",
            why=f"the prompt drives the model out of the range of its numbers, for {len(lost)} of "
            f"{len(examples)} texts",
            fix="tune the prompt again with a lower train.lr, or use another one",
        )
    return unit(result) if normalize else result
