"""A method's injection for a batch."""

from __future__ import annotations

from ..data.collate import Batch
from ..injection import Injection
from ..methods.base import SoftPrompt
from .base import LanguageModel
from .features import read


def injection_for(lm: LanguageModel, method: SoftPrompt, batch: Batch) -> Injection:
    """What the method gives this batch, having read the input where it does.

    Where all rows ask for the same prompt, and it reads nothing, one row of it for all.
    """
    if method.reads is not None:
        return method(batch.prompt_ids, read(lm, batch, method.reads))
    ids = batch.prompt_ids
    return method(ids[:1] if bool((ids == ids[0]).all()) else ids)
