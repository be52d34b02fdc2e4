"""Two base models' vocabularies: which tokens they share, and the base that a saved prompt was trained on.

Tokens are compared as text (a leading space kept), so that byte-level and sentencepiece vocabularies meet.
Texts that several tokens of one vocabulary have (parts of characters, mostly) are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import artifact as artifacts
from .artifact import Artifact
from .errors import SoftPromptError
from .lm.base import LanguageModel
from .lm.loading import load
from .methods.transfer import OtherBase, SharedTokens


def token_text(tokenizer: Any, token: int) -> str:
    """One token as text, its leading space kept."""
    piece = tokenizer.convert_ids_to_tokens(token)
    if isinstance(piece, str) and "▁" in piece:
        return piece.replace("▁", " ")
    return tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)


def other_base(lm: LanguageModel) -> Callable[[str], OtherBase | None]:
    """For `Setting.other_base`: of a prompt's folder, the base it was trained on; None where that is `lm`."""

    def of(path: str) -> OtherBase | None:
        artifact = artifacts.load(path)
        if not artifact.differences(lm):
            return None
        name = artifact.manifest["base"]["name"]
        return OtherBase(name, lambda: shared_tokens(source_base(artifact), lm))

    return of


def source_base(artifact: Artifact) -> LanguageModel:
    """The base model that an artifact names, on the CPU, with the weights that were trained along.

    Raises SoftPromptError where it is not there any more, or is another model by now.
    """
    saved = artifact.manifest["base"]
    try:
        lm = load(saved["name"], dtype=saved.get("dtype", "float32"), device="cpu")
    except SoftPromptError as error:
        raise SoftPromptError(
            f"the base model of {artifact.path} cannot be read: {error.what}",
            why="its embeddings are needed to carry the prompt to another model"
            + (f"; {error.why}" if error.why else ""),
            fix=f"bring '{saved['name']}' back, or start without init=artifact",
        ) from error
    # the rest of the configuration does not change what an embedding is
    if changed := [part for part in artifact.differences(lm) if part in ("weights", "tokenizer")]:
        raise SoftPromptError(
            f"'{saved['name']}' is not the base model that {artifact.path} was trained on",
            why=f"its {' and '.join(changed)} differ, so the prompt's vectors do not lie among its tokens",
            fix="bring the original model back under that name",
        )
    artifact.load_base(lm)
    return lm


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
