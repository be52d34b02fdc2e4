"""Compute a method's injection for a batch, with the columns that a training step hides from its rows."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad

from ..data.collate import Batch
from ..injection import Injection, Prefix
from ..methods.base import SoftPrompt
from .base import LanguageModel
from .features import read


def injection_for(lm: LanguageModel, method: SoftPrompt, batch: Batch) -> Injection:
    """Return what the method gives for this batch; a generated prompt reads the inputs.

    Where all rows have the same prompt and it reads nothing, the injection has one row for all of them.
    """
    if method.reads is not None:
        injection = method(batch.prompt_ids, read(lm, batch, method.reads))
    else:
        ids = batch.prompt_ids
        injection = method(ids[:1] if bool((ids == ids[0]).all()) else ids)
    return injection if batch.hidden is None else _without(injection, batch.hidden)


def _without(injection: Injection, hidden: Bool[Tensor, "batch prefix"]) -> Injection:
    """Hide columns of the prefix, right-aligned, from rows; keys and values of one row still serve all."""

    def seen(part: Prefix) -> Prefix:
        missing = part.mask.shape[1] - hidden.shape[1]
        return replace(part, mask=part.mask & ~pad(hidden, (missing, 0), value=False))

    names = ("kv_before", "kv_after")
    parts = {name: seen(part) for name in names if (part := getattr(injection, name)) is not None}
    return replace(injection, **parts)
