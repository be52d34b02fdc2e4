"""The time until the first token of an answer is measured, one request at a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from ..data.collate import collate
from ..data.example import Example
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..methods.base import SoftPrompt

TIMED = 5  # requests


def seconds_to_first_token(lm: LanguageModel, method: SoftPrompt, examples: Sequence[Example]) -> float:
    """Return the median seconds until the first token of a request."""
    seconds = []
    for example in [examples[0], *examples[:TIMED]]:  # the first warms up
        batch = collate([example], lm.device).with_targets([[0]])
        started = time.perf_counter()
        with torch.no_grad():
            lm.logits(batch, injection_for(lm, method, batch))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
