"""Compute a method's injection for a batch."""

from __future__ import annotations

from ..data.collate import Batch
from ..injection import Injection
from ..methods.base import SoftPrompt
from .base import LanguageModel
from .features import read


def injection_for(lm: LanguageModel, method: SoftPrompt, batch: Batch) -> Injection:
    """Return what the method gives for this batch; a generated prompt reads the inputs.

    Where all rows have the same prompt and it reads nothing, the injection has one row for all of them.
    """
    if method.reads is not None:
        return method(batch.prompt_ids, read(lm, batch, method.reads))
    ids = batch.prompt_ids
    return method(ids[:1] if bool((ids == ids[0]).all()) else ids)
