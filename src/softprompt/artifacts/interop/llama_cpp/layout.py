"""Measure how an engine orders the numbers of a key: its keys of some text are compared with the model's.

Rotary pairs are dimensions i and i + d/2 in transformers. Where llama.cpp rotates neighbours instead (the
llama architecture), a GGUF's query and key weights are reordered, and so are the keys in its cache.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ....data.collate import batch_of_ids
from ....errors import SoftPromptError
from ....lm.base import LanguageModel
from .state import State

#: The largest relative error. Weights of four bits give a tenth, another order or model more than one.
LIMIT = 0.5
FEWEST = 4  # tokens: at position 0 nothing is rotated


def halves(key: Tensor) -> Tensor:
    """Keep keys [k, heads, d] as they are."""
    return key


def neighbours(key: Tensor) -> Tensor:
    """Put dimensions i and i + d/2 of keys [k, heads, d] next to each other."""
    return key.unflatten(2, (2, -1)).transpose(2, 3).flatten(2)


@torch.no_grad()
def measure(lm: LanguageModel, state: State) -> Callable[[Tensor], Tensor]:
    """Return the order of the engine's keys. Raises SoftPromptError where no order matches the model's."""
    if len(state.tokens) < FEWEST or max(state.tokens) >= lm.spec.vocab_size:
        raise SoftPromptError(
            f"the engine's state is of {len(state.tokens)} tokens",
            why=f"its layout is measured on at least {FEWEST} tokens of the same vocabulary",
            fix="save the state of a longer prompt",
        )
    batch = batch_of_ids([[*state.tokens, 0]], device=lm.device)  # the last token is not in the cache
    ours = [layer.key[0].transpose(0, 1).float().cpu() for layer in lm.prefill(batch).layers if layer]
    if len(ours) != len(state.keys):
        raise _another_model(lm, f"it has {len(state.keys)} layers, and the model {len(ours)}")
    rows = [state.key_rows(index) for index in (0, len(ours) - 1)]
    if rows[0].shape[1] != ours[0][0].numel():
        raise _another_model(
            lm, f"a key has {rows[0].shape[1]} numbers, and the model's {ours[0][0].numel()}"
        )
    off = {order: _distance(order, [ours[0], ours[-1]], rows) for order in (halves, neighbours)}
    best = min(off, key=lambda order: off[order])
    if off[best] > LIMIT:
        raise _another_model(lm, f"its keys of the same tokens differ by {off[best]:.0%}")
    return best


def _distance(order: Callable[[Tensor], Tensor], ours: list[Tensor], theirs: list[np.ndarray]) -> float:
    worst = 0.0
    for key, rows in zip(ours, theirs, strict=True):
        expected, engine = order(key).flatten(1), torch.from_numpy(np.array(rows))
        worst = max(worst, ((expected - engine).norm() / expected.norm()).item())
    return worst


def _another_model(lm: LanguageModel, why: str) -> SoftPromptError:
    return SoftPromptError(
        f"the state was not saved by an engine that runs '{lm.name}'",
        why=why,
        fix="save one with the GGUF of the model that the prompt was trained on",
    )
