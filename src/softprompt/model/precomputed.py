"""TRL's trainers read a reference off the model itself under `precompute_ref_log_probs` without `ref_model`.

That reference would have the vectors, and the first loss would be that of no change at all. A call of the
reference has the same arguments as a call of an evaluation, so it is known by the function that makes it.
"""

from __future__ import annotations

import sys

import torch

from ..errors import SoftPromptError

READS_REFERENCE = "compute_ref_log_probs"  # of TRL's DPOTrainer and KTOTrainer


def refuse_own_reference() -> None:
    """Raise SoftPromptError in a call that TRL makes for a reference while its trainer has no `ref_model`."""
    if torch.is_grad_enabled() or "trl" not in sys.modules:
        return
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != READS_REFERENCE:
        frame = frame.f_back
    trainer = None if frame is None else frame.f_locals.get("self")
    if frame is None or getattr(trainer, "ref_model", None) is not None:
        return
    raise SoftPromptError(
        "the reference would have the vectors of the prompt",
        why=f"{type(trainer).__name__} has no ref_model and reads its reference off the model that it trains",
        fix="pass ref_model=model.reference(), or use softprompt.DPOTrainer or softprompt.KTOTrainer",
    )
