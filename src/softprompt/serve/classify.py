"""Label probabilities under a classification prompt, in batches that fit between two steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..compose import scale
from ..data.batches import by_tokens
from ..data.collate import collate
from ..data.encode import Example
from ..evaluate import BATCH_TOKENS, answer
from ..injection import Injection
from ..lm.base import LanguageModel
from ..objectives import injection_for
from .registry import Loaded
from .request import InvalidRequest

Probabilities = dict[str, float]


def classified(
    lm: LanguageModel, loaded: Loaded, rows: Sequence[str | Mapping[str, Any]], strength: float = 1.0
) -> Iterator[Callable[[], list[Probabilities]]]:
    """For each batch of rows, in order, the work that makes their labels' (or choices') probabilities.

    Raises InvalidRequest for a prompt that does not choose among labels, and what encoding a row raises.
    """
    tuned = loaded.tuned
    if tuned.encoder.kind not in ("classification", "choice"):
        raise InvalidRequest(
            f"prompt '{loaded.name}' was not made to classify",
            why=f"its task is {tuned.encoder.kind}",
            fix="ask it for a completion, or ask a classification prompt",
        )
    name = tuned.artifact.prompts[loaded.index]
    examples = [tuned.encoder.encode(row, with_target=False, prompt=name) for row in rows]
    lengths = [len(e.input_ids) + max(map(len, e.candidates or ((),))) for e in examples]
    for numbers in by_tokens(range(len(examples)), lengths, BATCH_TOKENS):
        part = [examples[i] for i in numbers]
        yield lambda part=part: _probabilities(lm, loaded, part, strength)


def _probabilities(
    lm: LanguageModel, loaded: Loaded, examples: Sequence[Example], strength: float
) -> list[Probabilities]:
    encoder, method = loaded.tuned.encoder, loaded.tuned.method
    batch = collate(examples, lm.device, targets=False)
    injection = injection_for(lm, method, batch) if strength else Injection()
    if strength not in (0, 1):
        injection = scale(injection, strength, lm)
    said = answer(lm, encoder, batch, injection, lm.context(batch, injection), examples)
    found = []
    for example, one in zip(examples, said, strict=True):
        names, scores = encoder.labels or example.rendered.choices or (), one.scores or ()
        largest = max(scores)
        weights = [math.exp(score - largest) for score in scores]
        found.append({n: w / sum(weights) for n, w in zip(names, weights, strict=True)})
    return found
