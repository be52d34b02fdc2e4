"""The fixtures draw random sentences, which serve as predictions and references."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

WORDS = "the cat sat on a mat and saw one small dog near an old house".split()


def _sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(5, 12))) for _ in range(count)]


@pytest.fixture
def sentences() -> Callable[[int, int], list[str]]:
    """Return `sentences(count, seed)`, which draws sentences of 5 to 12 words."""
    return _sentences


@pytest.fixture
def ragged() -> tuple[list[str], list[list[str]]]:
    """Return predictions that share words with one, two or three references each."""
    rng = random.Random(1)
    predictions = _sentences(40, seed=2)
    references = []
    for i, text in enumerate(predictions):
        words = text.split()
        words[rng.randrange(len(words))] = "changed"
        references.append([" ".join(words), *_sentences(rng.randint(0, 2), seed=100 + i)])
    assert {len(texts) for texts in references} == {1, 2, 3}
    return predictions, references
