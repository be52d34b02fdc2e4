"""Label probabilities under a classification prompt, in batches that fit between two steps."""

from __future__ import annotations

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
from .labels import check_kind, probabilities
from .registry import Loaded

Probabilities = dict[str, float]


def classified(
    lm: LanguageModel, loaded: Loaded, rows: Sequence[str | Mapping[str, Any]], strength: float = 1.0
) -> Iterator[Callable[[], list[Probabilities]]]:
    """For each batch of rows, in order, the work that makes their labels' (or choices') probabilities.

    Raises InvalidRequest for a prompt that does not choose among labels, and what encoding a row raises.
    """
    tuned = loaded.tuned
    check_kind(loaded.name, tuned.encoder.kind)
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
        found.append(probabilities(encoder.labels or example.rendered.choices or (), one.scores or ()))
    return found
