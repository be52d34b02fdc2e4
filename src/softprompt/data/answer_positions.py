"""An encoder's answers are read at masked words, or at the first token of each word.

A position is the number of the row's tokens ahead of it, the tokenizer's special ones included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from softprompt.errors import SoftPromptError

Ids = tuple[int, ...]


def mask_places(ids: Ids, tokenizer: Any, labels: Sequence[Ids], where: str) -> Ids:
    """Return the positions of the masks in a row; there must be as many as each label word has tokens."""
    places = tuple(place for place, token in enumerate(ids) if token == tokenizer.mask_token_id)
    needed = len(labels[0])
    if len(places) == needed:
        return places
    masks = {0: "no mask", 1: "1 mask"}.get(len(places), f"{len(places)} masks")
    raise SoftPromptError(
        f"{where}: {masks} in the input, but a label word has {needed} token{'s' if needed > 1 else ''}",
        why="a masked-language model answers at its mask, a token at each",
        fix=f"write {' '.join(['{{ mask }}'] * needed)} into template.input (and check that nothing cuts it "
        "off), or take a head of labels: task.head=true",
    )


def check_label_words(texts: Sequence[str], ids: Sequence[Ids]) -> None:
    """Raise SoftPromptError for label words of different lengths, which the same masks cannot hold."""
    lengths = {len(word) for word in ids}
    if len(lengths) > 1:
        shown = ", ".join(f"{text.strip()!r} {len(word)}" for text, word in zip(texts, ids, strict=True))
        raise SoftPromptError(
            "the label words have different numbers of tokens",
            why=f"tokens: {shown[:200]}; all are scored at the same masks",
            fix="choose words of one token each (task.verbalizer={label: word, …}), or task.head=true",
        )


def mask_lead(template: str, mask: str) -> str:
    """Return the space that a label word begins with: there is one where the template has one before its
    mask.
    """
    ahead = re.split(r"\{\{-?\s*mask\b|" + re.escape(mask), template)[0]
    return " " if ahead[-1:].isspace() else ""


def word_places(tokenizer: Any, words: Sequence[str], where: str) -> Ids:
    """Return the position of the first token of each word of `" ".join(words)`."""
    if not getattr(tokenizer, "is_fast", False):
        raise SoftPromptError(
            "token classification needs a fast tokenizer",
            why="only a fast one reports which characters a token covers",
            fix="use a model with a tokenizer.json",
        )
    spans = tokenizer(" ".join(words), return_offsets_mapping=True, verbose=False)["offset_mapping"]
    places, token, start = [], 0, 0
    for number, word in enumerate(words, 1):
        while token < len(spans) and spans[token][1] <= start:
            token += 1
        if token == len(spans) or spans[token][0] >= start + len(word):
            raise SoftPromptError(
                f"{where}: word {number}, {word!r}, has no token",
                why="the model's tokenizer removes its characters",
                fix="remove the word and its tag from the row",
            )
        places.append(token)
        start += len(word) + 1
    return tuple(places)
