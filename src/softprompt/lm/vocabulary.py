"""The texts of a vocabulary's tokens, and which tokens two vocabularies share."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from ..errors import SoftPromptError
from ..methods.transfer import SharedTokens
from .base import LanguageModel


def token_text(tokenizer: Any, token: int) -> str:
    """One token as text, its leading space kept."""
    piece = tokenizer.convert_ids_to_tokens(token)
    if isinstance(piece, str) and "▁" in piece:
        return piece.replace("▁", " ")
    return tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)


@torch.no_grad()
def shared_tokens(source: LanguageModel, target: LanguageModel) -> SharedTokens:
    """Both models' embeddings of the tokens with the same text, in the order of the source's ids."""
    ours, theirs = token_ids(source), token_ids(target)
    texts = [text for text in ours if text in theirs]
    if not texts:
        raise SoftPromptError(
            f"'{source.name}' and '{target.name}' have no token in common",
            why="a prompt is carried over by the tokens that both vocabularies have",
            fix="train one for this model, with init=vocab",
        )
    return SharedTokens(_embed(source, ours, texts), _embed(target, theirs, texts))


def token_ids(lm: LanguageModel) -> dict[str, int]:
    """Each token's id by its text, where one token alone has that text."""
    if lm.tokenizer is None:
        raise SoftPromptError(f"'{lm.name}' has no tokenizer", fix="load it from a folder that holds one")
    ids = sorted(i for i in lm.tokenizer.get_vocab().values() if i < lm.spec.vocab_size)
    texts = [token_text(lm.tokenizer, i) for i in ids]
    count = Counter(texts)
    return {text: i for text, i in zip(texts, ids, strict=True) if count[text] == 1}


def _embed(lm: LanguageModel, ids: dict[str, int], texts: list[str]) -> Tensor:
    return lm.embed(torch.tensor([ids[text] for text in texts], device=lm.device)).cpu()
