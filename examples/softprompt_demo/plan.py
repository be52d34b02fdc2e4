"""Decide how much of the demo fits into its time, from the measured time of one batch of each part.

The remaining parts are planned again before each part, from the time that earlier parts took. So on a machine
that becomes busy meanwhile, the demo has fewer rows and steps and takes no longer. This file runs no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

SECONDS = 570.0  # the time that the plan fills
AT_MOST = 630.0  # after this time no more rows are begun
EVALUATIONS = 6  # dev evaluations: the plain model's, four while training, and the best prompt's
BATCH = 16


@dataclass(frozen=True)
class Size:
    """The amounts that are run."""

    steps: int
    train: int  # rows
    dev: int  # rows
    test: int  # rows that are scored
    answered: int  # how many of the test rows are also answered in text
    tokens: int  # of an answer, at most

    def changes(self, full: Size) -> list[str]:
        """Return what is less than in the full demo, in words."""
        names = {
            "steps": "steps",
            "train": "rows to learn from",
            "dev": "dev rows",
            "test": "test rows",
            "answered": "answers in text",
            "tokens": "tokens an answer",
        }
        pairs = [(getattr(self, key), getattr(full, key), name) for key, name in names.items()]
        return [f"{mine} of {most} {name}" for mine, most, name in pairs if mine < most]


#: Shares of the whole demo, in the order of `Size`. Texts cost much and show little more than the scores, so
#: they are reduced first.
SHARES = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    (1.0, 1.0, 1.0, 1.0, 0.7, 1.0),
    (1.0, 1.0, 1.0, 1.0, 0.4, 1.0),
    (0.75, 1.0, 1.0, 1.0, 0.35, 1.0),
    (0.75, 1.0, 0.7, 0.8, 0.25, 0.8),
    (0.6, 0.8, 0.7, 0.7, 0.2, 0.8),
    (0.5, 0.7, 0.5, 0.5, 0.16, 0.7),
    (0.4, 0.55, 0.5, 0.4, 0.13, 0.7),
    (0.3, 0.4, 0.33, 0.33, 0.1, 0.5),
    (0.2, 0.28, 0.33, 0.25, 0.08, 0.5),
    (0.15, 0.2, 0.25, 0.2, 0.06, 0.5),
    (0.1, 0.14, 0.16, 0.13, 0.05, 0.33),
    (0.05, 0.1, 0.1, 0.07, 0.03, 0.2),
)
LEAST = (1, 4, 2, 4, 4, 4)


def ladder(full: Size) -> tuple[Size, ...]:
    """Return the sizes from the whole demo down to the least."""
    whole = astuple(full)
    return tuple(
        Size(
            *(min(n, max(low, round(n * share))) for n, low, share in zip(whole, LEAST, shares, strict=True))
        )
        for shares in SHARES
    )


@dataclass(frozen=True)
class Paces:
    """Measured seconds of scoring and answering a row, with and without demonstrations, and of a step."""

    tokens: int  # of each answer that was timed
    score: float
    write: float
    shown_score: float  # with demonstrations
    shown_write: float
    step: float  # of a batch whose inputs are cached

    def reference(self, size: Size, shots: int) -> float:
        """Return the seconds of the plain model's answers."""
        score, write = (self.shown_score, self.shown_write) if shots else (self.score, self.write)
        return self._answers(size, score, write)

    def tuned(self, size: Size) -> float:
        """Return the seconds of one tuned candidate, from its cache to its answers."""
        return self.training(size) + self._answers(size, self.score, self.write)

    def training(self, size: Size) -> float:
        """Return the seconds of its cache, its steps and its dev evaluations."""
        read = min(size.train, size.steps * BATCH) + size.dev
        # a dev row goes forward only
        dev = EVALUATIONS * size.dev * self.step / BATCH / 2
        return read * self.score + size.steps * self.step + dev

    def _answers(self, size: Size, score: float, write: float) -> float:
        # an answer takes its input, and then its tokens
        texts = size.answered * (min(score, write) + max(0.0, write - score) * size.tokens / self.tokens)
        return size.test * score + texts


def seconds(parts: Sequence[int | None], size: Size, paces: Paces, slower: float = 1.0) -> float:
    """Return the seconds of `parts`: a number of demonstrations for the plain model, None for a tuned one."""
    return slower * sum(
        paces.tuned(size) if shots is None else paces.reference(size, shots) for shots in parts
    )


def fit(
    sizes: Sequence[Size], parts: Sequence[int | None], paces: Paces, left: float, slower: float = 1.0
) -> Size:
    """Return the first of the sizes whose parts end in time, or the last."""
    return next((size for size in sizes if seconds(parts, size, paces, slower) <= left), sizes[-1])
