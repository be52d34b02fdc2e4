"""It measures a prefix of sixteen demonstrations (CT-KV) beside the same prefix without its two tricks.

The tricks are leave-one-out and token dropout. A seed draws the demonstrations of a set, which both ways
share, with the rows that choose the best step and the rows that are scored. The untrained prefix is the
few-shot prompt in context: some rows are scored through the text too, and the largest difference is kept.
"""

from __future__ import annotations

import copy
import math
import random
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

from softprompt import methods
from softprompt.config.load import recipe_from_dict
from softprompt.data.fewshot import few_shot
from softprompt.data.row import Row
from softprompt.data.split import limit_rows
from softprompt.evaluation.evaluator import evaluator_of
from softprompt.methods.base import Setting
from softprompt.training.prepare import Prepared, prepare
from softprompt.training.tune import tune

from .bench import Bench, Result, errors, table, whole

REVIEW = "Review: {{ input }}\nSentiment:"
ANSWER = "{{ input }}\nAnswer:"
#: Sets of labels, and their templates.
SETS = {
    "sst2": REVIEW,
    "ag_news": "News: {{ input }}\nTopic:",
    "customer_reviews": REVIEW,
    "rte": ANSWER,
    "qqp": ANSWER,
    "mrpc": ANSWER,
    "cb": ANSWER,
    "mnli": ANSWER,
}
SHOWN, DEV, TEST, THROUGH_TEXT = 16, 32, 200, 4  # rows
LONGEST = 500  # characters of an input
SEEDS = 3
WAYS: dict[str, dict[str, Any]] = {
    "CT-KV": {"leave_one_out": True, "token_dropout": 0.1},
    "plain": {"leave_one_out": False, "token_dropout": 0.0},
}
TRAIN: dict[str, Any] = {"steps": 60, "batch_size": 8, "lr": 1e-3, "eval_every": 20}


def names(bench: Bench) -> list[str]:
    """Return the names of the sets."""
    return ["short"] if bench.short else list(SETS)


def measure(bench: Bench) -> list[Result]:
    """Tune both ways for each set and seed."""
    seeds = bench.settings.get("seeds", 2 if bench.short else SEEDS)
    bench = bench.without("seeds")
    return [
        bench.once(f"demonstrations-{name}-{seed}-{way}", partial(_tuned, bench, name, seed, way))
        for name in bench.chosen(names(bench))
        for seed in range(seeds)
        for way in WAYS
    ]


def report(results: Sequence[Result]) -> str:
    """Format the accuracies of each set, means over seeds, and the mean difference over sets."""
    scores: dict[tuple[str, str], dict[int, float]] = {}
    for r in whole(results):
        scores.setdefault((r["set"], r["way"]), {})[r["seed"]] = r["accuracy"]
        scores.setdefault((r["set"], "in context"), {})[r["seed"]] = r["in_context"]
    rows, gains = [], []
    for name in dict.fromkeys(r["set"] for r in whole(results)):
        tricks, plain = (scores.get((name, way), {}) for way in WAYS)
        if seeds := sorted(set(tricks) & set(plain)):
            pairs = [100 * (tricks[seed] - plain[seed]) for seed in seeds]
            means = [
                statistics.mean(scores[name, way][seed] for seed in seeds) for way in ("in context", *WAYS)
            ]
            each = " ".join(f"{pair:+.1f}" for pair in pairs)
            rows.append((name, *(f"{100 * mean:.1f}" for mean in means), each))
            gains.append(statistics.mean(pairs))
    header = ("set", "few-shot in context", *WAYS, "difference of each seed")
    return "\n\n".join(filter(None, [table(header, rows), _difference(gains), errors(results)]))


def _difference(gains: Sequence[float]) -> str:
    """Format the mean over sets with its 95 % interval: Student's t over the means of sets."""
    from scipy.stats import t

    if len(gains) < 2:
        return f"difference: {gains[0]:+.1f} points on one set: no interval" if gains else ""
    mean, half = (
        statistics.mean(gains),
        t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / math.sqrt(len(gains)),
    )
    interval = f"[{mean - half:+.1f}, {mean + half:+.1f}]"
    return (
        f"difference: {mean:+.1f} points {interval}, over {len(gains)} sets (a set is the mean of its seeds)"
    )


def _tuned(bench: Bench, name: str, seed: int, way: str) -> Result:
    """Tune the demonstrations of a set in one way, and score the rows that are measured on."""
    run_name = f"demonstrations-{name}-{seed}-{way}"
    shown, dev, test = _rows(bench, name, seed)
    given = bench.without("max_new_tokens", "dtype").settings  # of the short form: answers are labels
    recipe = recipe_from_dict(
        {
            "model": bench.lm.origin.recipe(bench.lm.name),
            "data": {"train": "rows in memory"},
            "template": {"input": ANSWER if bench.short else SETS[name]},
            "task": {"kind": "classification", "metrics": ["accuracy"]},
            "method": {"name": "prefix-tuning", "init": "demonstrations", **WAYS[way]},
            "train": {**TRAIN, "seed": seed, **given},
            "output": str(bench.out / "runs" / run_name),
        }
    )
    prepared = prepare(recipe, lm=bench.lm, rows=shown, dev_rows=dev)
    untrained = copy.deepcopy(prepared.method)
    run = tune(prepared, text_rows=0)
    evaluator = evaluator_of(recipe, bench.lm, prepared.encoder)
    examples = prepared.encoder.encode_rows(test)
    start, end = (evaluator.run(method, examples) for method in (untrained, run.prepared.method))
    return {
        "set": name,
        "seed": seed,
        "way": way,
        "accuracy": end.metrics["accuracy"].value,
        "in_context": start.metrics["accuracy"].value,
        "differs_by": _differs_by(prepared, shown, test, [r.nll for r in start.records]),
        "demonstrations": sum(e.demonstration is not None for e in prepared.train),
        "vectors": prepared.recipe.method.options()["length"],
        "best_step": run.outcome.best_step,
        "training_seconds": run.outcome.seconds,
        "n": end.n,
    }


def _differs_by(prepared: Prepared, shown: Sequence[Row], test: Sequence[Row], losses: list[float]) -> float:
    """Return the largest difference (nats) of a target's loss: untrained prefix against few-shot text."""
    lm, recipe = prepared.lm, prepared.recipe
    plain = methods.build("none", Setting(lm, prepared.prompts))
    rows = few_shot(prepared.encoder.begun(), shown, test[:THROUGH_TEXT], len(shown), seed=recipe.train.seed)
    records = evaluator_of(recipe, lm, prepared.encoder).run(plain, rows).records
    return max(abs(record.nll - loss) for record, loss in zip(records, losses, strict=False))


def _rows(bench: Bench, name: str, seed: int) -> list[list[Row]]:
    """Return the demonstrations, of which each label has as many, the dev rows and the test rows."""
    if bench.short:
        rows = [{"input": f"{i * 7 % 40} is", "target": "ab"[i * 7 % 40 > 19]} for i in range(40)]
        parts, sizes = [rows[:16], rows[16:24], rows[24:]], (4, 8, 16)
    else:
        parts = [_fitting(bench.rows(name, f"{part}.jsonl")) for part in ("train", "validation", "test")]
        sizes = (SHOWN, DEV, TEST)
    by_label: dict[str, list[dict]] = {}
    for row in parts[0]:
        by_label.setdefault(row["target"], []).append(row)
    draw = random.Random(seed)
    drawn = [draw.sample(rows, min(len(rows), sizes[0])) for _, rows in sorted(by_label.items())]
    balanced = [rows[i] for i in range(sizes[0]) for rows in drawn if i < len(rows)][: sizes[0]]
    others = [limit_rows(rows, size, 0) for rows, size in zip(parts[1:], sizes[1:], strict=True)]
    return [[Row(row, f"{name}, row {i}") for i, row in enumerate(rows)] for rows in (balanced, *others)]


def _fitting(rows: Sequence[dict]) -> list[dict]:
    kept = [{"input": row["input"], "target": row["target"]} for row in rows if len(row["input"]) <= LONGEST]
    return list({row["input"]: row for row in kept}.values())
