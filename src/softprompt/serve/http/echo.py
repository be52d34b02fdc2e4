"""The input's text comes back with an answer, and how many of its characters each token completes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..detokenizer import Detokenizer
from .inputs import Input, Inputs


def echoed(inputs: Inputs, given: Input, answered: bool, scored: bool) -> Input:
    """Return the input with its text as it is echoed; a text is echoed as it was sent.

    `answered`: an answer follows, which completes a character that the ids end within. `scored`: the lengths
    of its tokens are needed too.
    """
    if given.continues and not given.from_ids and not scored:  # nothing to tokenize again
        return replace(given, echo=given.text)
    with inputs.long_texts.turn(len(given.text)):
        if not given.from_ids and (lengths := _lengths(inputs.tokenizer, given)) is not None:
            return replace(given, echo=given.text, echo_lengths=tuple(lengths))
        detokenizer = Detokenizer(inputs.tokenizer, named=True)
        texts = [detokenizer.add(id) for id in given.ids]
        texts[-1] += "" if answered else detokenizer.rest()
    return replace(given, echo="".join(texts), echo_lengths=tuple(map(len, texts)))


def _lengths(tokenizer: Any, given: Input) -> list[int] | None:
    """Count characters by the offsets of a fast tokenizer; None where the ids are not those of the text."""
    if not given.text:
        return [0] * len(given.ids)
    if not getattr(tokenizer, "is_fast", False):
        return None
    encoding = tokenizer(
        given.text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    count = len(given.ids)
    if tuple(encoding["input_ids"][:count]) != given.ids:
        return None
    marks = zip(encoding["special_tokens_mask"], encoding["offset_mapping"], strict=True)
    places = [None if added else place for added, place in marks][:count]
    ends, end, begin = [0] * count, 0, len(given.text)
    for i, place in enumerate(places):
        end = ends[i] = end if place is None else max(end, place[1])
    for i in reversed(range(count)):  # a token completes no more than the later ones leave to it
        ends[i], place = min(ends[i], begin), places[i]
        begin = begin if place is None else min(begin, place[0])
    ends[-1] = len(given.text)
    return [end - before for end, before in zip(ends, [0, *ends[:-1]], strict=True)]
