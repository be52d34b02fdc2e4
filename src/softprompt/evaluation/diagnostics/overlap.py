"""Rows of two splits that are nearly the same text are found by Jaccard similarity of shingles, exactly.

Candidates are found by prefix filtering (Chaudhuri, Ganti, Kaushik 2006; with k: Wang, Li, Feng 2012): two
sets of similarity t share k of the rarest |x| − ⌈t|x|⌉ + k members of each, and neither is smaller than t
times the other. So none is missed, and few pairs are compared.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from .run import Finding, Run

SHINGLE = 5  # characters
NEAR = 0.8
TOGETHER = 16  # k: more rule out more pairs, and take a longer index
SHARE = 0.01  # of the test rows: fewer are a note


def train_test_overlap(run: Run) -> Finding | None:
    """Report test rows (dev rows where there are none) whose input is nearly that of a training row."""
    held, name = (run.test, "test") if run.test else (run.dev, "dev")
    if not run.train or not held:
        return None
    texts = [e.rendered.input for e in run.train], [e.rendered.input for e in held]
    pairs = near_duplicates(*texts)
    if not pairs:
        return None
    example = max(pairs, key=lambda pair: pair[2])
    evidence = (
        f"{len(pairs)} of {len(held)} {name} inputs share {100 * NEAR:.0f} % or more of their "
        f"{SHINGLE}-character "
        f"shingles with a training input; the nearest: {name} row {example[1] + 1}, training row "
        f"{example[0] + 1} "
        f"({100 * example[2]:.0f} %)"
    )
    level = "warning" if len(pairs) > SHARE * len(held) else "note"
    summary = f"training and {name} rows overlap: the score is too good"
    fix = f"remove those rows from data.train, then {run.tune()}"
    return Finding(level, summary, evidence, fix)


def near_duplicates(
    train: Sequence[str], held: Sequence[str], threshold: float = NEAR
) -> list[tuple[int, int, float]]:
    """Return (training row, held row, similarity) of each held row's nearest, where it is `threshold` or
    more.

    Text that all inputs begin or end with (a template's own words) is left out.
    """
    bare = _without_frame([*train, *held])
    sets = [shingles(text) for text in bare]
    counts = Counter(shingle for members in sets for shingle in members)
    ordered = [sorted(members, key=lambda s: (counts[s], s)) for members in sets]
    index: dict[str, list[int]] = defaultdict(list)
    for row in range(len(train)):
        for shingle in _rarest(ordered[row], threshold):
            index[shingle].append(row)
    pairs = []
    for place in range(len(train), len(sets)):
        shared = Counter(
            row for shingle in _rarest(ordered[place], threshold) for row in index.get(shingle, ())
        )
        near = [
            (jaccard(sets[row], sets[place]), -row)
            for row, count in shared.items()
            if _may_be_near(len(sets[row]), len(sets[place]), count, threshold)
        ]
        if near and (best := max(near))[0] >= threshold:
            pairs.append((-best[1], place - len(train), best[0]))
    return pairs


def shingles(text: str) -> frozenset[str]:
    """Return the text's runs of characters, without case, punctuation and runs of space."""
    plain = " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())
    return frozenset(plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1)) if plain)


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the share of members that both sets have; 0 for empty sets."""
    both = len(a & b)
    return both / (len(a) + len(b) - both) if both else 0.0


def _least(size: int, threshold: float) -> int:
    """Return how many members a set of this size shares with any set that is near it."""
    return math.ceil(threshold * size - 1e-9)


def _rarest(ordered: Sequence[str], threshold: float) -> Sequence[str]:
    least = _least(len(ordered), threshold)
    return ordered[: len(ordered) - least + min(TOGETHER, least)]


def _may_be_near(a: int, b: int, shared: int, threshold: float) -> bool:
    small, large = sorted((a, b))
    return small >= threshold * large - 1e-9 and shared >= min(TOGETHER, _least(small, threshold))


def _common(texts: Sequence[str]) -> int:
    """Return how many characters all texts begin with: those of the first and the last in order."""
    low, high = min(texts), max(texts)
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))


def _without_frame(texts: Sequence[str]) -> list[str]:
    if len(set(texts)) < 2:
        return list(texts)
    head = _common(texts)
    tail = _common([text[head:][::-1] for text in texts])
    return [text[head : len(text) - tail] for text in texts]
