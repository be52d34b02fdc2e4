"""Cases of `generate`: caches of other kinds, none, and one that a first turn has filled."""

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

HOW: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
SAID = [7, 8, 44]  # what the user says in the second turn
STEPS = "logits of the steps of `generate` against those "


def _theirs(model: Any, ids: list[int], **options: Any) -> tuple[Tensor, Any]:
    """Logits [steps, 1, V] and what PEFT's `generate` returned."""
    scores = Scores()
    made = model.generate(
        **row(ids), logits_processor=[scores], return_dict_in_generate=True, **HOW, **options
    )
    return scores.stacked(), made


def _ours(
    lm: LanguageModel, injection: Injection, ids: list[int], **options: Any
) -> tuple[Tensor, list[int]]:
    """Logits [steps, 1, V] and the new tokens."""
    scores = Scores()
    made = lm.generate(batch_of_ids([ids]), injection, logits_processor=[scores], **HOW, **options)
    return scores.stacked(), made[0].tolist()


def static_cache(kind: str) -> Row:
    """A cache of fixed size, as compiled decoding needs it."""
    return _under(f"static cache, {kind}", kind, "with a dynamic cache", cache_implementation="static")


def no_cache() -> Row:
    """Every step computed anew."""
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
    """A conversation goes on with the cache of its first turn."""

    def peft() -> float:
        model = in_peft(METHODS[kind])
        _, first = _theirs(model, LONG)
        told = first.sequences[0].tolist() + SAID
        kept, _ = _theirs(model, told, past_key_values=first.past_key_values)
        return difference(kept, _theirs(model, told)[0])

    def ours() -> float:
        lm = here()
        injection = prompt(lm, METHODS[kind])(torch.tensor([0]))
        cache = DynamicCache(config=lm.model.config)
        _, made = _ours(lm, injection, LONG, past_key_values=cache)
        told = LONG + made + SAID
        kept, _ = _ours(lm, injection, told, past_key_values=cache)
        return difference(kept, _ours(lm, injection, told)[0])

    return compare(f"second turn, {kind}", STEPS + "of the conversation computed anew", peft=peft, ours=ours)
