"""Check on load whether keys and values alone replace an input that was computed before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..data.collate import batch_of_ids

if TYPE_CHECKING:
    from .causal import CausalLM


@torch.no_grad()
def check(lm: CausalLM) -> str:
    """Return the reason why keys and values do not replace the input; an empty string where they do.

    The logits of two rows are computed both ways and compared.
    """
    ids = torch.arange(3, 17, device=lm.device).reshape(2, 7) * 5 % lm.spec.vocab_size
    batch = batch_of_ids([ids[0].tolist(), ids[1, :3].tolist()], [ids[1, 3:5].tolist()] * 2)
    batch = batch.to(lm.device)
    full = lm.logits(batch).float()
    cached = lm.logits(batch, None, lm.input_context(batch)).float()
    scale = full.abs().max().clamp(min=1.0)
    if (full - cached).abs().max() / scale < (1e-4 if lm.dtype == torch.float32 else 0.1):
        return ""
    return "its layers keep more of the input than keys and values (a recurrent state, say)"
