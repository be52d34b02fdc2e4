"""`generate` is called with other kinds of cache, without one, and with a first turn's cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from softprompt.data.collate import batch_of_ids
from softprompt.injection import Injection
from softprompt.lm.base import LanguageModel

from .models import LONG, METHODS, Scores, here, in_peft, prompt, row
from .rows import Row, compare, difference

GREEDY: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
REPLY = [7, 8, 44]  # the user's message of the second turn
STEPS = "logits of the steps of `generate` against those "


def _theirs(model: Any, ids: list[int], **options: Any) -> tuple[Tensor, Any]:
    """Return logits [steps, 1, V] and the output of PEFT's `generate`."""
    scores = Scores()
    output = model.generate(
        **row(ids), logits_processor=[scores], return_dict_in_generate=True, **GREEDY, **options
    )
    return scores.stacked(), output


def _ours(
    lm: LanguageModel, injection: Injection, ids: list[int], **options: Any
) -> tuple[Tensor, list[int]]:
    """Return logits [steps, 1, V] and the new tokens."""
    scores = Scores()
    output = lm.generate(batch_of_ids([ids]), injection, logits_processor=[scores], **GREEDY, **options)
    return scores.stacked(), output[0].tolist()


def static_cache(kind: str) -> Row:
    """Use a cache of fixed size, as compiled decoding needs it."""
    return _under(f"static cache, {kind}", kind, "with a dynamic cache", cache_implementation="static")


def no_cache() -> Row:
    """Compute every step anew."""
    return _under("use_cache=False, prefix", "prefix", "with a cache", use_cache=False)


def _under(case: str, kind: str, usual: str, **options: Any) -> Row:
    def peft() -> float:
        model = in_peft(METHODS[kind])
        return difference(_theirs(model, LONG, **options)[0], _theirs(model, LONG)[0])

    def ours() -> float:
        lm = here()
        injection = prompt(lm, METHODS[kind])(torch.tensor([0]))
        return difference(_ours(lm, injection, LONG, **options)[0], _ours(lm, injection, LONG)[0])

    return compare(case, STEPS + usual, peft=peft, ours=ours)


def second_turn(kind: str) -> Row:
    """Continue a conversation with the cache of its first turn."""

    def peft() -> float:
        model = in_peft(METHODS[kind])
        _, first = _theirs(model, LONG)
        conversation = first.sequences[0].tolist() + REPLY
        kept, _ = _theirs(model, conversation, past_key_values=first.past_key_values)
        return difference(kept, _theirs(model, conversation)[0])

    def ours() -> float:
        lm = here()
        injection = prompt(lm, METHODS[kind])(torch.tensor([0]))
        cache = DynamicCache(config=lm.model.config)
        _, new = _ours(lm, injection, LONG, past_key_values=cache)
        conversation = LONG + new + REPLY
        kept, _ = _ours(lm, injection, conversation, past_key_values=cache)
        return difference(kept, _ours(lm, injection, conversation)[0])

    return compare(f"second turn, {kind}", STEPS + "of the conversation computed anew", peft=peft, ours=ours)
