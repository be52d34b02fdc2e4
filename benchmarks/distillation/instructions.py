"""It measures the share of an instruction's gain in the task's metric that 16 vectors keep.

The vectors learn the model's answers to inputs of the training rows, with the instruction ahead of them.
The right answers are only measured against, on other inputs. The metric is chrF: SmolLM2 answers in whole
sentences, so that its exact match with answers of a word is 0, with the instruction as without it. Exact
match and ROUGE-L are kept in the results.

Tasks whose instruction raises the metric by less than 0.05 on training rows are left out: there is no gain of
which a share could be kept. The first twenty of the others are measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest

from softprompt import methods
from softprompt.build import encoder_of, template_of
from softprompt.config.load import recipe_from_dict
from softprompt.data.row import Row as DataRow
from softprompt.evaluation.evaluator import evaluator_of
from softprompt.methods.base import Setting

from .bench import Bench, Result, Row, distilled, errors, median_and_worst, table, whole

SETS = ("instruction_induction", "natural_instructions")
COUNT, TRAIN, TEST = 20, 96, 40  # tasks; rows of each
TRIED, NEW_TOKENS = 40, 32  # training rows that the instruction alone is tried on; tokens of an answer
LONGEST = 300  # characters of a task's median input
METRIC, METRICS = "chrf", ("exact_match", "rouge_l", "chrf")
LEAST_GAIN = 0.05  # of the metric, from 0 to 1: the share of a smaller gain is noise
WAYS = ("no text", "text", "vectors")
TEMPLATE = {"input": "{{ request }}", "target": "{{ reference[0] }}", "chat": True}
OPTIONS = {"vectors": 16, "seeds": 1, "max_new_tokens": NEW_TOKENS, "metrics": ["kl", *METRICS]}

Task = tuple[str, list[Row], list[Row]]  # the instruction, rows to learn from, rows to measure on


def names(bench: Bench) -> list[str]:
    """Return the names of the tasks; the sets take turns."""
    return list(_tasks(bench))


def measure(bench: Bench) -> list[Result]:
    """Turn the instruction of each task that it helps into vectors, and measure them."""
    known, results = _tasks(bench), []
    most = 1 if bench.short else len(known) if bench.only else bench.count or COUNT
    for name in bench.chosen(known, len(known)):
        wanted = bench.short or bench.only or _raised(bench, name, known[name]) >= LEAST_GAIN
        if len(results) < most and wanted:
            results.append(bench.once(f"instructions-{name}", partial(_distilled, bench, name, known[name])))
    return results


def report(results: Sequence[Result]) -> str:
    """Format the scores of each task, and the median share of the gain."""
    good = whole(results)
    rows = [
        (
            r["task"],
            *(f"{r['scores'][way][METRIC]:.3f}" for way in WAYS),
            "no gain" if (share := gain(r, METRIC)) is None else f"{100 * share:.0f} %",
        )
        for r in good
    ]
    over = []
    for metric in METRICS:
        shares = [share for r in good if (share := gain(r, metric)) is not None]
        over.append((metric, f"{len(shares)} of {len(good)}", median_and_worst(shares)))
    header = ("task", "no instruction", "instruction", "vectors", "share of the gain")
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
    scores = {way: _of_one(against[way]["metrics"]) for way in WAYS}
    return {
        "task": name,
        "scores": scores,
        "references": against["vectors"]["n"],
        **distilled(result),
    }


def _raised(bench: Bench, name: str, task: Task) -> float:
    """Return by how much the instruction raises the metric on training rows; 0 where a result is an error."""
    instruction, train, _ = task

    def compute() -> Result:
        ways = (("without", None), ("with", instruction))
        return {"task": name, **{way: _plain(bench, text, train[:TRIED]) for way, text in ways}}

    tried = bench.without(*bench.settings).once(f"instruction-alone-{name}", compute)
    return 0.0 if "error" in tried else tried["with"][METRIC] - tried["without"][METRIC]


def _plain(bench: Bench, system: str | None, rows: Sequence[Row]) -> dict[str, float]:
    """Return the metrics (0 to 1) of the plain model's answers behind a system text."""
    recipe = recipe_from_dict(
        {
            "model": bench.lm.origin.recipe(bench.lm.name),
            "data": {"train": "rows in memory"},
            "template": {**TEMPLATE, "system": system},
            "task": {"metrics": list(METRICS), "references": "reference", "max_new_tokens": NEW_TOKENS},
            "method": {"name": "none"},
        }
    )
    encoder = encoder_of(recipe, bench.lm, template_of(recipe, bench.lm), ("default",))
    plain = methods.build("none", Setting(bench.lm, ("default",)))
    examples = encoder.encode_rows([DataRow(row, f"row {i}") for i, row in enumerate(rows)])
    metrics = evaluator_of(recipe, bench.lm, encoder).run(plain, examples).metrics
    return _of_one({name: metric.value for name, metric in metrics.items()})


def _of_one(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics from 0 to 1; chrF is from 0 to 100."""
    return {name: metrics[name] / (100 if name == "chrf" else 1) for name in METRICS}


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
