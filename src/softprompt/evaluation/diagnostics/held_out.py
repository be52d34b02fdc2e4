"""Held-out rows are checked for what makes them useless: one answer to all, or the same inputs again.

The score of rows that all ask for one label tells how often a method gives that label, and not how well it
separates labels: a method that always gives it scores 100 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .overlap import NEAR, SHARE, near_duplicates, shingles
from .run import Encoded, Finding, Run

SAME = 0.95  # share of rows with one answer, at which the others are too few to measure anything
HALF = 0.5  # of the inputs
FEWEST = 2  # rows
FILES = {"dev": "data.dev", "test": "data.test", "unseen": "compare.unseen"}


def one_answer(run: Run) -> Finding | None:
    """Report dev, test or unseen rows whose targets are all, or nearly all, the same."""
    evidence: dict[str, str] = {}
    for split, rows in _parts(run):
        target, count = Counter(row.rendered.target.strip() for row in rows).most_common(1)[0]
        if count >= SAME * len(rows):
            evidence[split] = f"{count} of {len(rows)} {split} rows ask for '{_short(target)}'"
    summary = "a method that always gives this answer would score best, so the score measures nothing else"
    fix = _fix(run, evidence, "rows of several answers")
    return _finding("{} rows ask for one answer: " + summary, evidence, fix)


def unseen_overlap(run: Run) -> Finding | None:
    """Report unseen rows whose input is nearly that of a training row."""
    if not run.train or not run.unseen:
        return None
    pairs = near_duplicates(
        [row.rendered.input for row in run.train], [row.rendered.input for row in run.unseen]
    )
    if not pairs:
        return None
    count, n = len({held for _, held, _ in pairs}), len(run.unseen)
    example = max(pairs, key=lambda pair: pair[2])
    evidence = (
        f"{count} of {n} unseen inputs share {100 * NEAR:.0f} % or more of their shingles with a training "
        f"input; the nearest: unseen row {example[1] + 1}, training row {example[0] + 1}"
    )
    summary = "unseen rows are nearly training rows, so they do not measure how it does on new inputs"
    level = "warning" if count > SHARE * n else "note"
    fix = _fix(run, ["unseen"], "rows that no training row is like")
    return Finding(level, summary, evidence, fix, ("unseen",) if count >= HALF * n else ())


def repeated_inputs(run: Run) -> Finding | None:
    """Report dev, test or unseen rows that mostly repeat the same few inputs."""
    evidence = {}
    for split, rows in _parts(run):
        # An input under another prompt is another question: several voices may answer the same messages.
        different = len({(row.rendered.prompt, shingles(row.rendered.input)) for row in rows})
        if len(rows) >= 10 and different <= (1 - HALF) * len(rows):
            evidence[split] = f"{len(rows)} {split} rows have {different} different inputs"
    fix = _fix(run, evidence, "rows that differ")
    return _finding("{} rows are the same few inputs again, so they count for fewer rows", evidence, fix)


def _parts(run: Run) -> list[tuple[str, Sequence[Encoded]]]:
    parts = {"dev": run.dev, "test": run.test, "unseen": run.unseen}
    return [(split, rows) for split, rows in parts.items() if len(rows) >= FEWEST]


def _fix(run: Run, splits: Iterable[str], rows: str) -> str:
    files = [f"{FILES[split]}=FILE" for split in splits]
    command = f"softprompt compare {run.recipe} {' '.join(files)}"
    return (run.tune(*files) if files == ["data.dev=FILE"] else command) + f"   ({rows})"


def _finding(summary: str, evidence: dict[str, str], fix: str) -> Finding | None:
    if not evidence:
        return None
    splits = tuple(evidence)
    return Finding("warning", summary.format(" and ".join(splits)), "; ".join(evidence.values()), fix, splits)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"
