"""It measures the share of a document's effect that a fifth, a twentieth and a fiftieth as many vectors keep.

The vectors learn from requests that the model writes itself about the document. The questions that people
asked about it are held back: they are only measured on. Each result also has the share of the untrained
start.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from .bench import Bench, Result, distilled, errors, median_and_worst, percent, table, whole
from .untrained import share_of_start

COUNT, LEAST, MOST = 10, 1500, 6000  # documents; their tokens
RATIOS = (20, 5, 50)
MEASURED = 24  # questions of a document that are held back, spread over it
SETS = ("squad_docs", "squality")
#: Half of the usual requests; answers of at most two or three sentences.
OPTIONS = {"role": "document", "init": "matched", "max_new_tokens": 64, "batch_size": 16}
REQUESTS = 128

Document = tuple[str, list[str]]  # the text, and the questions that are held back


def names(bench: Bench) -> list[str]:
    """Return the names of the documents, the shortest first."""
    return list(_documents(bench))


def measure(bench: Bench) -> list[Result]:
    """Measure each document at each ratio of text tokens to vectors."""
    results, known = [], _documents(bench)
    counts = {title: len(bench.lm.text_ids(text)) for title, (text, _) in known.items()}
    sizes = (1, MOST) if bench.only or bench.short else (LEAST, MOST)
    fitting = [title for title in known if sizes[0] <= counts[title] <= sizes[1]]
    for title in bench.chosen(fitting, COUNT):
        for ratio in RATIOS[: 2 if bench.short else None]:
            vectors = max(2, counts[title] // ratio)
            compute = partial(_distilled, bench, title, known[title], ratio, vectors)
            results.append(bench.once(f"documents-{title}-{ratio}", compute))
    return results


def _distilled(bench: Bench, title: str, document: Document, ratio: int, vectors: int) -> Result:
    text, questions = document
    requests = [f"what is {i}" for i in range(48)] if bench.short else None
    options = {**OPTIONS, "vectors": vectors, "seeds": 1, "measure": questions}
    options |= {} if bench.short else {"count": REQUESTS}
    like = f"documents-{title}-{RATIOS[0]}"
    result = bench.distil(f"documents-{title}-{ratio}", text, requests, like, **options)
    return {
        "document": title,
        "ratio": ratio,
        "init": result.run.prepared.recipe.method.options()["init"],
        "start": share_of_start(result, questions),
        "trained_on": len(result.run.prepared.train),
        "training_seconds": result.run.outcome.seconds,
        **distilled(result),
    }


def report(results: Sequence[Result]) -> str:
    """Format the share of each document, and the median and the worst at each ratio."""
    good = whole(results)
    rows = [
        (
            r["document"],
            r["text_tokens"],
            f"{r['ratio']}×",
            r["vectors"],
            percent(r["start"]),
            percent(r["share"]),
            r["n"],
        )
        for r in good
    ]
    over = []
    for ratio in sorted(RATIOS):
        for way, key in (("untrained start", "start"), ("trained", "share")):
            shares = [r[key][0] for r in good if r["ratio"] == ratio]
            over.append((f"{ratio}×", way, len(shares), median_and_worst(shares)))
    header = ("document", "tokens", "ratio", "vectors", "untrained start", "trained", "questions")
    parts = [
        table(header, rows),
        table(("ratio", "vectors", "documents", "median", "worst"), over),
        errors(results),
    ]
    return "\n\n".join(filter(None, parts))


def _documents(bench: Bench) -> dict[str, Document]:
    """Return the documents by name, the shortest first, each with questions that have an answer."""
    if bench.short:
        text = "the sun is warm and the mud is cold in the song of the rain. " * 3
        return {"short": (text, [f"who is {i}" for i in range(16)])}
    known = {}
    for row in sorted((row for name in SETS for row in bench.rows(name, "documents.jsonl")), key=_length):
        questions = [qa["question"] for qa in row["qas"] if qa.get("answerable", True)]
        questions = list(dict.fromkeys(questions))
        step = max(1.0, len(questions) / MEASURED)
        spread = [questions[int(i * step)] for i in range(min(MEASURED, len(questions)))]
        known[re.sub(r"\W+", "-", row["title"].lower()).strip("-")] = (row["document"], spread)
    return known


def _length(row: dict) -> int:
    return len(row["document"])
