"""A model's tokens have ids and texts; two vocabularies share those with the same text."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.tokens import beyond_vocabulary
from ..errors import SoftPromptError
from ..methods.transfer import SharedTokens

if TYPE_CHECKING:
    from .base import LanguageModel


def embedded_ids(model: Any, most: int) -> int:
    """The number of ids, `most` at most, that have an embedding in an encoder and a decoder alike."""
    modules = [model.get_input_embeddings()]
    if model.config.is_encoder_decoder:
        modules.append(model.get_decoder().get_input_embeddings())
    sizes = [len(weight) for module in modules if (weight := getattr(module, "weight", None)) is not None]
    return int(min([most, *sizes]))


def pad_id(model: Any, vocabulary: int) -> int:
    """The id that fills rows: the model's padding, else its first end token, else 0."""
    config = model.generation_config
    ends = config.eos_token_id
    first_end = ends[0] if isinstance(ends, list) else ends
    ids = (config.pad_token_id, first_end)
    return next((int(i) for i in ids if i is not None and 0 <= i < vocabulary), 0)


def text_ids(lm: LanguageModel, text: str) -> list[int]:
    """Return a text's token ids, without special tokens. Raises for an id that has no embedding."""
    if lm.tokenizer is None:
        raise SoftPromptError(
            "this model was loaded without a tokenizer", fix="give token ids instead of text"
        )
    ids: list[int] = lm.tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[assignment]
    if ids and max(ids) >= lm.vocabulary:
        where = f"the text {text[:60]!r}"
        raise beyond_vocabulary(lm.tokenizer, max(ids), lm.vocabulary, where, text=text)
    return ids


def token_text(tokenizer: Any, token: int) -> str:
    """Return one token as text, with its leading space."""
    piece = tokenizer.convert_ids_to_tokens(token)
    if isinstance(piece, str) and "▁" in piece:
        return piece.replace("▁", " ")
    return tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)


@torch.no_grad()
def shared_tokens(source: LanguageModel, target: LanguageModel) -> SharedTokens:
    """Return both models' embeddings of the tokens with the same text, in the order of the source's ids."""
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
    """Return each token's id by its text, where only one token has that text."""
    if lm.tokenizer is None:
        raise SoftPromptError(f"'{lm.name}' has no tokenizer", fix="load it from a folder that holds one")
    ids = sorted(i for i in lm.tokenizer.get_vocab().values() if i < lm.spec.vocab_size)
    texts = [token_text(lm.tokenizer, i) for i in ids]
    count = Counter(texts)
    return {text: i for text, i in zip(texts, ids, strict=True) if count[text] == 1}


def _embed(lm: LanguageModel, ids: dict[str, int], texts: list[str]) -> Tensor:
    return lm.embed(torch.tensor([ids[text] for text in texts], device=lm.device)).cpu()
