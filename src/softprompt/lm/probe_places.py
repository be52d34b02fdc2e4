"""Check on load that vectors in each place of an encoder-decoder model have an effect.

Soft tokens of the decoder are columns of its own attention. A decoder whose attention does not take
columns would leave them out, and half of the vectors of `placement=both` would never be trained.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..data.collate import batch_of_ids
from ..errors import SoftPromptError
from ..injection import Injection, SoftTokens

if TYPE_CHECKING:
    from .seq2seq import Seq2SeqLM

PLACES = ("before", "after", "decoder")


def places_without_effect(lm: Seq2SeqLM) -> list[str]:
    """Return the places of soft tokens to which no gradient comes back, or which change no answer."""
    size = lm.spec.vocab_size
    batch = batch_of_ids([[5 % size, 17 % size, 9 % size]], [[7 % size, 12 % size]]).to(lm.device)
    with torch.no_grad():
        plain, start = lm.logits(batch), lm.embed(torch.tensor([[9 % size, 33 % size]], device=lm.device))
    real = torch.ones(1, 2, dtype=torch.bool, device=lm.device)
    dead = []
    for place in PLACES:
        vectors = (1.5 * start).detach().requires_grad_(True)
        with torch.enable_grad():
            logits = lm.logits(batch, replace(Injection(), **{place: SoftTokens(vectors, real)}))
            loss = logits.float().square().mean()
        gradient = None
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, vectors, allow_unused=True)
        trained = gradient is not None and bool((gradient.abs().amax(-1) > 0).all())
        if not trained or not (logits.detach() - plain).abs().max() > 0:
            dead.append(place)
    return dead


def check(lm: Seq2SeqLM) -> dict[str, str]:
    """Return the limits that this finds. Raises SoftPromptError where the encoder reads no soft tokens."""
    dead = places_without_effect(lm)
    if wrong := [place for place in dead if place != "decoder"]:
        raise SoftPromptError(
            f"model family '{lm.spec.family}' cannot take a soft prompt",
            why=f"no gradient comes back to vectors placed {' or '.join(wrong)} its input",
            fix="use another base model, and report this family",
        )
    why = "vectors ahead of its decoder's tokens have no effect (measured): attention there takes no columns"
    return {"decoder": why} if "decoder" in dead else {}
