"""Whether rows that were held out can measure anything: one answer to all, inputs that say the same again.

A score on rows that all ask for one label says how often a method gives that label, and nothing of how well
it tells labels apart: a method that always says it scores 100 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .overlap import NEAR, SHARE, near_duplicates, shingles
from .run import Encoded, Finding, Run

SAME = 0.95  # of the rows ask for one answer: the others are too few to tell anything
HALF = 0.5  # of the inputs
FEWEST = 2  # rows
FILES = {"dev": "data.dev", "test": "data.test", "unseen": "compare.unseen"}


def one_answer(run: Run) -> Finding | None:
    """Dev, test or unseen rows whose targets are all, or nearly all, the same."""
    said: dict[str, str] = {}
    for split, rows in _parts(run):
        target, count = Counter(row.rendered.target.strip() for row in rows).most_common(1)[0]
        if count >= SAME * len(rows):
            said[split] = f"{count} of {len(rows)} {split} rows ask for '{_short(target)}'"
    what = "a method that always gives this answer would score best, so the score measures nothing else"
    mend = _mend(run, said, "rows of several answers")
    return _finding("{} rows ask for one answer: " + what, said, mend)


def unseen_overlap(run: Run) -> Finding | None:
    """Unseen rows whose input is nearly that of a training row."""
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
    what = "unseen rows are nearly training rows, so they do not measure how it does on new inputs"
    level = "warning" if count > SHARE * n else "note"
    mend = _mend(run, ["unseen"], "rows that no training row is like")
    return Finding(level, what, evidence, mend, ("unseen",) if count >= HALF * n else ())


def repeated_inputs(run: Run) -> Finding | None:
    """Dev, test or unseen rows that are mostly the same few inputs again."""
    said = {}
    for split, rows in _parts(run):
        # An input under another prompt asks for another answer: several voices may answer the same messages.
        different = len({(row.rendered.prompt, shingles(row.rendered.input)) for row in rows})
        if len(rows) >= 10 and different <= (1 - HALF) * len(rows):
            said[split] = f"{len(rows)} {split} rows have {different} different inputs"
    mend = _mend(run, said, "rows that differ")
    return _finding("{} rows are the same few inputs again, so they count for fewer rows", said, mend)


def _parts(run: Run) -> list[tuple[str, Sequence[Encoded]]]:
    parts = {"dev": run.dev, "test": run.test, "unseen": run.unseen}
    return [(split, rows) for split, rows in parts.items() if len(rows) >= FEWEST]


def _mend(run: Run, splits: Iterable[str], rows: str) -> str:
    files = [f"{FILES[split]}=FILE" for split in splits]
    command = f"softprompt compare {run.recipe} {' '.join(files)}"
    return (run.tune(*files) if files == ["data.dev=FILE"] else command) + f"   ({rows})"


def _finding(what: str, said: dict[str, str], mend: str) -> Finding | None:
    if not said:
        return None
    return Finding("warning", what.format(" and ".join(said)), "; ".join(said.values()), mend, tuple(said))


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"
