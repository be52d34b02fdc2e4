"""Check, at the first call, that transformers' `generate` gives what the model itself answers.

Decoding runs other code: a cache, a family's way of preparing a step. Where that code fails, or computes
something else than the model does for the whole row, text would silently be wrong.
"""

from __future__ import annotations

from typing import Any

import torch

from ..data.collate import batch_of_ids
from ..errors import SoftPromptError
from .generation import option_value
from .model_errors import OURS, DoesNotRun, place, reason

LENGTHS, NEW = (11, 1), 3
TOLERANCE = {torch.float32: 1e-3}  # of the logits' largest number; other precisions round more
ROUNDED = 0.2


def check(lm: Any, options: dict[str, Any]) -> None:
    """Raise SoftPromptError where `generate`, with the requested kind of cache, is not exact or fails."""
    kind = option_value(lm.model, options, "cache_implementation")
    kind = "none" if option_value(lm.model, options, "use_cache") is False else kind
    cause = None
    if kind not in lm.decoding:
        lm.decoding[kind] = ""  # what follows calls `generate`
        try:
            lm.decoding[kind] = _measure(lm, kind)
        except DoesNotRun as error:
            cause = error.__cause__
            if cause is None or place(cause).startswith(OURS):
                raise
            lm.decoding[kind] = f"its own code ends with {error.why}"
    if why := lm.decoding[kind]:
        raise SoftPromptError(
            f"transformers does not generate with a {lm.spec.family} model"
            + (f" (kind of cache: {kind})" if kind else ""),
            why=why,
            fix="leave cache_implementation out"
            if kind and kind != "none"
            else "try use_cache=False, which is measured too; or score labels (task.kind=classification), or "
            "use another base model",
        ) from cause


@torch.no_grad()
def _measure(lm: Any, kind: str | None) -> str:
    """Return why text would not be the model's, or an empty string."""
    first = min(4, lm.spec.vocab_size - 1)  # special tokens come first
    ids = (torch.arange(sum(LENGTHS)) * 7 % max(1, lm.spec.vocab_size - first) + first).tolist()
    options: dict[str, Any] = {"use_cache": False} if kind == "none" else {"cache_implementation": kind}
    longer, shorter = ids[: min(LENGTHS[0], max(1, lm.spec.context - NEW))], ids[-LENGTHS[1] :]
    # a row of one token alone may be taken for a step; beside a longer one it is padded
    for rows in ([longer, shorter] if lm.spec.batching == "any" else [longer], [shorter]):
        try:
            output = lm.generate(
                batch_of_ids(rows).to(lm.device),
                max_new_tokens=NEW,
                do_sample=False,
                num_beams=1,
                return_dict_in_generate=True,
                output_logits=True,
                disable_compile=True,
                **options,
            )
        except SoftPromptError:
            raise
        except Exception as error:
            if (where := place(error)).startswith(OURS):
                raise
            return f"its own code ends with {reason(error)} ({where})"
        tokens = output.sequences.tolist()
        stepped = torch.stack(output.logits[-len(tokens[0]) :], dim=1).float()
        for row, expected, got in zip(rows, tokens, stepped, strict=True):
            ended = next((i + 1 for i, token in enumerate(expected) if token in lm.ends), len(expected))
            expected, got = expected[:ended], got[:ended]  # what is padding behind an end is nobody's answer
            anew = lm.logits(batch_of_ids([row], [expected]).to(lm.device)).float()[0]
            off = ((got - anew).abs().amax(-1) / anew.abs().max().clamp(min=1e-3)).tolist()
            # rounding may send a token to other experts: in other precisions the middle one decides
            worst = max(off) if lm.dtype in TOLERANCE else sorted(off)[len(off) // 2]
            if not worst <= TOLERANCE.get(lm.dtype, ROUNDED):
                mode = "step by step" if len(rows) == 1 else "step by step, in a padded batch,"
                return (
                    f"{mode} it gives other logits than for the whole row, by {worst:.2g} of their size "
                    "(measured)"
                )
    return ""
