"""Check, when checkpointing is first switched on, that the gradient is the one without it."""

from __future__ import annotations

from typing import Any

import torch

from ..data.collate import batch_of_ids
from ..injection import Injection, SoftTokens
from .model_errors import reason
from .refusals import no_checkpointing

TOLERANCE = {torch.float32: 1e-3}  # of the gradient's largest number; other precisions round more
ROUNDED = 0.2


def check(lm: Any, layers: tuple[torch.nn.Module, ...]) -> None:
    """Raise SoftPromptError where the gradient of soft tokens changes once layers are computed again."""
    if not layers:
        raise no_checkpointing(lm.spec, "transformers has none for it")
    plain = _gradient(lm, ())
    try:
        again = _gradient(lm, layers)
    except RuntimeError as error:  # torch notices itself where other numbers come back
        raise no_checkpointing(lm.spec, f"its layers cannot be computed again: {reason(error)}") from error
    off = ((plain - again).abs().max() / plain.abs().max().clamp(min=1e-9)).item()
    if not off <= TOLERANCE.get(lm.dtype, ROUNDED):
        raise no_checkpointing(
            lm.spec,
            f"its gradient with checkpointing differs from the one without by {off:.0%} (measured): layers "
            "that are run several times, say, are not computed again as they were",
        )


@torch.enable_grad()
def _gradient(lm: Any, layers: tuple[torch.nn.Module, ...]) -> torch.Tensor:
    ids = (torch.arange(6) * 7 % max(1, lm.spec.vocab_size - 4) + min(4, lm.spec.vocab_size - 1)).tolist()
    batch = batch_of_ids([ids[:4]], [ids[4:]], places=[[0, 2]]).to(lm.device)
    vectors = lm.embed(batch.input_ids[:, :3]).detach() * 1.5
    vectors.requires_grad_(True)
    soft = SoftTokens(vectors, torch.ones(1, 3, dtype=torch.bool, device=lm.device))
    before, lm.checkpointed = lm.checkpointed, layers
    try:
        loss = lm.logits(batch, Injection(before=soft)).float().square().mean()
        (gradient,) = torch.autograd.grad(loss, vectors)
    finally:
        lm.checkpointed = before
    return gradient.float()
