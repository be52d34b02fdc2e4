"""It measures the share of an instruction's gain in the task's metric that 16 vectors keep.

The vectors learn the model's answers to inputs of the training rows, with the instruction ahead of them.
The right answers are only measured against, on other inputs. A task's metric is exact match where its right
answers have at most three words, else ROUGE-L. All three metrics are kept in the results.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest

from .bench import Bench, Result, Row, distilled, errors, median_and_worst, table, whole

SETS = ("instruction_induction", "natural_instructions")
COUNT, TRAIN, TEST = 20, 96, 40  # tasks; rows of each
LONGEST = 300  # characters of a task's median input
SHORT_ANSWER = 3  # words
METRICS = ("exact_match", "rouge_l", "chrf")
LEAST_GAIN = 0.05  # of the metric, from 0 to 1: the share of a smaller gain is noise
WAYS = ("no text", "text", "vectors")
OPTIONS = {"vectors": 16, "seeds": 1, "max_new_tokens": 32, "metrics": ["kl", *METRICS]}

Task = tuple[str, list[Row], list[Row]]  # the instruction, rows to learn from, rows to measure on


def names(bench: Bench) -> list[str]:
    """Return the names of the tasks; the sets take turns."""
    return list(_tasks(bench))


def measure(bench: Bench) -> list[Result]:
    """Turn the instruction of each task into vectors, and measure them."""
    known = _tasks(bench)
    return [
        bench.once(f"instructions-{name}", partial(_distilled, bench, name, known[name]))
        for name in bench.chosen(known, COUNT)
    ]


def report(results: Sequence[Result]) -> str:
    """Format the scores of each task, and the median share of the gain."""
    good = whole(results)
    rows = [
        (
            r["task"],
            r["metric"],
            *(f"{r['scores'][way][r['metric']]:.3f}" for way in WAYS),
            "no gain" if (share := gain(r, r["metric"])) is None else f"{100 * share:.0f} %",
        )
        for r in good
    ]
    over = []
    for title, metric in (("of the task", None), *((metric, metric) for metric in METRICS)):
        shares = [share for r in good if (share := gain(r, metric or r["metric"])) is not None]
        over.append((title, f"{len(shares)} of {len(good)}", median_and_worst(shares)))
    header = ("task", "metric", "no instruction", "instruction", "vectors", "share of the gain")
    summary = ("metric", f"tasks with a gain of {LEAST_GAIN} or more", "median", "worst")
    return "\n\n".join(filter(None, [table(header, rows), table(summary, over), errors(results)]))


def gain(result: Result, metric: str) -> float | None:
    """Return the share of the instruction's gain that the vectors have; None where it gains too little."""
    none, text, vectors = (result["scores"][way][metric] for way in WAYS)
    return (vectors - none) / (text - none) if text - none >= LEAST_GAIN else None


def _distilled(bench: Bench, name: str, task: Task) -> Result:
    instruction, train, test = task
    result = bench.distil(f"instructions-{name}", instruction, train, measure=test, **OPTIONS)
    against = result.comparison.references
    # chrF is from 0 to 100
    scores = {
        way: {m: against[way]["metrics"][m] / (100 if m == "chrf" else 1) for m in METRICS} for way in WAYS
    }
    words = statistics.median(len(answer.split()) for row in test for answer in row["reference"][:1])
    return {
        "task": name,
        "metric": "exact_match" if words <= SHORT_ANSWER else "rouge_l",
        "scores": scores,
        "references": against["vectors"]["n"],
        **distilled(result),
    }


def _tasks(bench: Bench) -> dict[str, Task]:
    """Return the tasks with enough rows of short inputs, by name."""
    if bench.short:
        rows = [{"request": f"word {i}", "reference": [f"{i} drow"]} for i in range(48)]
        return {"short": ("write it backwards", rows[:32], rows[32:])}
    in_turn = zip_longest(*(_of_set(bench, name) for name in SETS))
    return {name: task for each in in_turn for item in each if item is not None for name, task in [item]}


def _of_set(bench: Bench, name: str) -> Iterator[tuple[str, Task]]:
    parts = []
    for part in ("train", "test"):
        by_task: dict[str, list[Row]] = {}
        for row in bench.rows(name, f"{part}.jsonl"):
            request = {"request": row["input"], "reference": row["references"]}
            by_task.setdefault(row["task"], []).append(request)
        parts.append(by_task)
    for task in bench.rows(name, "tasks.jsonl"):
        train, test = (part.get(task["task"], []) for part in parts)
        enough = len(train) >= TRAIN and len(test) >= TEST
        if enough and statistics.median(len(row["request"]) for row in train) <= LONGEST:
            yield task["task"], (task["instruction"], train[:TRAIN], test[:TEST])
