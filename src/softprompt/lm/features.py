"""A generated prompt reads features of the input: embeddings, hidden states, or a separate encoder's output.

They are constants of the row while the base is frozen, so a plan may keep them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from ..data.collate import Batch
from ..errors import SoftPromptError
from ..methods.base import Features, Reads
from .base import LanguageModel


def is_constant(lm: LanguageModel, reads: Reads) -> bool:
    """Return whether an input's features stay the same through training, and are more than a look-up."""
    return reads.kind == "encoder" or (reads.kind == "hidden" and lm.is_frozen)


def read(lm: LanguageModel, batch: Batch, reads: Reads) -> Features:
    """Return the features [B, M, D] of the batch's inputs: its own, or computed here."""
    if batch.features is not None and batch.features_mask is not None:
        return Features(batch.features, batch.features_mask)
    if reads.kind == "embeddings":
        return Features(lm.embed(batch.input_ids), batch.input_mask)
    if reads.kind == "hidden":
        return Features(lm.hidden(batch.input_ids, batch.input_mask, reads.layer), batch.input_mask)
    _, encoder = pretrained(reads.encoder, str(lm.device))
    words = encoder_ids(lm, reads, batch.texts)
    with torch.no_grad():
        values = encoder(**words).last_hidden_state
    return Features(values, words["attention_mask"].bool())


def encoder_ids(lm: LanguageModel, reads: Reads, texts: Sequence[str]) -> Any:
    """Encode texts for a separate encoder: ids and `attention_mask` [B, M], on the base's device."""
    tokenizer, encoder = pretrained(reads.encoder, str(lm.device))
    limit = min(int(getattr(encoder.config, "max_position_embeddings", 512)), 512)
    options = {"return_tensors": "pt", "padding": True, "truncation": True, "max_length": limit}
    return tokenizer([text or " " for text in texts], **options).to(lm.device)


def size(lm: LanguageModel, reads: Reads) -> int:
    """Return D of the features that `read` returns."""
    if reads.kind == "encoder":
        return int(pretrained(reads.encoder, str(lm.device))[1].config.hidden_size)
    return lm.spec.hidden_size


@lru_cache(maxsize=4)
def pretrained(name: str, device: str) -> tuple[Any, Any]:
    """Load a frozen pretrained encoder and its tokenizer, by hub id or folder."""
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    try:
        with torch.random.fork_rng(devices=[]):  # loading draws numbers, and a method may be drawing its own
            options = {"trust_remote_code": False}  # else transformers asks the user
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
            encoder = AutoModel.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise SoftPromptError(
            f"cannot load encoder '{name}'",
            why=str(error).strip().splitlines()[0],
            fix="give the hub id or folder of a model such as a sentence encoder, or source=embeddings",
        ) from error
    return tokenizer, encoder.to(device).eval().requires_grad_(False)
