"""Print the tables of `docs/nine-comparisons.md`: what the published comparisons show about three claims.

    python -m benchmarks.comparisons.claims [--results docs/comparisons]

1. A prefix covers a wider range of inputs, and adapts to new ones better.
2. A soft prompt needs less.
3. A soft prompt gives more control.

A further table shows how far each learning rate of a search was behind the best of that search on the dev
rows: the median over the sets, in points (for a perplexity, hundredths of the best), and on how many sets it
was the best.

The last table shows how good the method named by `choose --pilot` was, if `pilot.json` is beside the scores.
A method is good if the comparison did not show it to be worse than the best, and it is within two points of
the best (for a perplexity, two hundredths).

Each claim is tested with the vectors before the input, and with the vectors after it. Differences are
prefix − prompt in the metric's own numbers, with the sign that makes more better, and the 95 % interval of
the comparison's own paired test, for that pair alone; "shown" means significant after correction for all
pairs of that set. Splits that cannot measure quality, since nearly all rows have one label, are left out.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from softprompt.compare.report.limits import unmeasurable
from softprompt.compare.report.read import comparison
from softprompt.compare.report.schema import Comparison, PairTest

PLACES = ("before", "after")
PROMPT, PREFIX = "prompt-tuning/{}", "prefix-tuning/{}"
COSTS = (
    ("trained_parameters", "trained parameters"),
    ("artifact_bytes", "bytes of the artifact"),
    ("flops", "operations to train"),
    ("peak_memory_bytes", "peak memory"),
    ("added_tokens", "added tokens"),
)
CONTROL = ("swap", "dose", "leakage", "composition", "adherence")
NEAR = 0.02
Row = list[str]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("docs/comparisons"))
    args = parser.parse_args()
    folders = [path.parent for path in sorted(args.results.glob("*/results.jsonl"))]
    if not folders:
        parser.error(f"no results.jsonl in folders of {args.results}")
    print("\n".join(tables([comparison(folder) for folder in folders], pilots(folders))))


def pilots(folders: Sequence[Path]) -> list[dict[str, Any] | None]:
    """Read each comparison's pilot; None if none was run."""
    files = [folder / "pilot.json" for folder in folders]
    return [json.loads(path.read_text(encoding="utf-8")) if path.exists() else None for path in files]


def tables(results: list[Comparison], piloted: Sequence[dict[str, Any] | None] = ()) -> Iterator[str]:
    """Yield the lines of the Markdown tables, at least one for each claim."""
    yield from _table("Scores", ["set", "split", *_names(results)], _scores(results))
    yield from _table(
        "1. Range: prefix − prompt",
        ["set", "split", "place", "difference", "95 %, of this pair alone", "p, corrected", "shown"],
        _range(results),
    )
    yield from _table(
        "1. Range, counted",
        ["split", "place", "sets", "prefix shown better", "prompt shown better", "prefix ahead, not shown"],
        _counted(results),
    )
    yield from _table(
        "2. Cost: prompt / prefix, of the finals",
        ["set", "place", *(name for _, name in COSTS)],
        _costs(results),
    )
    yield from _table("3. Control", ["set", "measure", "place", "prompt", "prefix"], _control(results))
    head, rows = _rates(results)
    yield from _table("Learning rates: points behind the best (sets on which it was the best)", head, rows)
    if any(piloted):
        yield from _table(
            "Pilots",
            ["set", "seconds", "named", "score", "best", "score", "worse, shown", "good"],
            _pilots(results, piloted),
        )


def paired(result: Comparison, split: str, a: str, b: str) -> PairTest | None:
    """Return the test of a − b, whichever order was tested; the sign makes more better."""
    sign = 1 if result.study.higher_is_better else -1
    for test in result.tests:
        if test.split != split or {test.a, test.b} != {a, b}:
            continue
        turn = sign if test.a == a else -sign
        low, high = test.low, test.high
        if turn < 0 and low is not None and high is not None:
            low, high = -high, -low
        return PairTest(
            split,
            test.metric,
            a,
            b,
            turn * test.difference,
            test.significant,
            low,
            high,
            p=test.p,
            p_adjusted=test.p_adjusted,
        )
    return None


def _names(results: list[Comparison]) -> list[str]:
    return list(dict.fromkeys(c.name for result in results for c in result.study.contestants))


def _scores(results: list[Comparison]) -> Iterator[Row]:
    for result in results:
        for split in ("test", "unseen"):
            means = {
                s.contestant: s.metrics.get(result.study.metric, {}).get("value")
                for s in result.scores
                if s.split == split and s.seed is None
            }
            if means:
                metric = result.study.metric + ("" if result.study.higher_is_better else " (less is better)")
                where = f"{split}, which cannot measure" if unmeasurable(result, split) else split
                yield [
                    f"{result.study.name}, {metric}",
                    where,
                    *(_number(means.get(n)) for n in _names(results)),
                ]


def _range(results: list[Comparison]) -> Iterator[Row]:
    for result in results:
        for split in ("test", "unseen"):
            for place in PLACES:
                test = paired(result, split, PREFIX.format(place), PROMPT.format(place))
                if test is not None and not unmeasurable(result, split):
                    interval = f"{_number(test.low)} … {_number(test.high)}"
                    shown = "no" if not test.significant else "prefix" if test.difference > 0 else "prompt"
                    yield [
                        result.study.name, split, place, _number(test.difference), interval,
                        _number(test.p_adjusted), shown,
                    ]  # fmt: skip


def _counted(results: list[Comparison]) -> Iterator[Row]:
    for split in ("test", "unseen"):
        for place in PLACES:
            usable = [result for result in results if not unmeasurable(result, split)]
            pairs = [paired(result, split, PREFIX.format(place), PROMPT.format(place)) for result in usable]
            tests = [test for test in pairs if test is not None]
            shown = [test.difference > 0 for test in tests if test.significant]
            ahead = sum(test.difference > 0 for test in tests if not test.significant)
            yield [split, place, *map(str, (len(tests), sum(shown), len(shown) - sum(shown), ahead))]


def _costs(results: list[Comparison]) -> Iterator[Row]:
    for result in results:
        for place in PLACES:
            pair = [_of_finals(result, name.format(place)) for name in (PROMPT, PREFIX)]
            if all(any(not math.isnan(get(key)) for key, _ in COSTS) for get in pair):
                ratios = [pair[0](key) / pair[1](key) if pair[1](key) else math.nan for key, _ in COSTS]
                yield [result.study.name, place, *map(_number, ratios)]


def _of_finals(result: Comparison, name: str) -> Callable[[str], float]:
    """Return a function that gives a cost's median over a contestant's finals; NaN if it was not measured."""
    finals = [t for t in result.trials if t.contestant == name and t.phase == "final" and t.status == "done"]

    def cost(key: str) -> float:
        values = [value for t in finals if (value := t.cost.get(key)) is not None]
        return median(values) if values else math.nan

    return cost


def _control(results: list[Comparison]) -> Iterator[Row]:
    for result in results:
        by = {(c.contestant, c.measure): c.value for c in result.controls}
        for measure in CONTROL:
            for place in PLACES:
                pair = [by.get((name.format(place), measure)) for name in (PROMPT, PREFIX)]
                if any(value is not None for value in pair):
                    yield [result.study.name, measure, place, *map(_number, pair)]


def _rates(results: list[Comparison]) -> tuple[Row, Iterator[Row]]:
    """Return the table's head and rows: each method has a row, each rate a column."""
    behind: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        for name in _names([result]):
            for rate, points in _behind(result, name).items():
                behind[name][rate].append(points)
    every = sorted({rate for rates in behind.values() for rate in rates})

    def cell(points: list[float]) -> str:
        return f"{median(points):.1f} ({sum(p == 0 for p in points)})" if len(points) > 1 else ""

    head = ["method", *(f"{rate:g}" for rate in every)]
    return head, ([name, *(cell(rates.get(rate, [])) for rate in every)] for name, rates in behind.items())


def _behind(result: Comparison, name: str) -> dict[float, float]:
    """Return how far the dev score of each rate of a contestant's search is behind the best."""
    metric = result.study.metric
    tried = (t for t in result.trials if t.contestant == name and t.phase == "search" and t.dev)
    scores = {t.settings["lr"]: float(value) for t in tried if (value := t.dev[metric]) is not None}
    if not scores:
        return {}
    best = max(scores.values()) if result.study.higher_is_better else min(scores.values())
    return {rate: 100 * abs(score - best) / _unit(metric, best) for rate, score in scores.items()}


def _pilots(results: list[Comparison], piloted: Sequence[dict[str, Any] | None]) -> Iterator[Row]:
    for result, pilot in zip(results, piloted, strict=True):
        if pilot is not None:
            named, seconds = pilot["named"], _number(pilot["seconds"])
            judged = judge(result, named)
            if judged is None:
                yield [result.study.name, seconds, named, "", "", "", "not in the comparison", "no"]
                continue
            best, scores, shown = judged
            good = is_good(result, named)
            yield [
                result.study.name, seconds, named, _number(scores[0]), best, _number(scores[1]),
                "yes" if shown else "no", "yes" if good else "no",
            ]  # fmt: skip


def judge(result: Comparison, named: str) -> tuple[str, tuple[float, float], bool] | None:
    """Return the best model-based method on test rows, both scores, and whether `named` is shown to be worse.

    Return None if `named` took no part.
    """
    metric, sign = result.study.metric, 1 if result.study.higher_is_better else -1
    means = {
        s.contestant: float(s.metrics[metric]["value"])
        for s in result.scores
        if s.split == "test" and s.seed is None and metric in s.metrics and s.contestant != "tf-idf"
    }
    if named not in means:
        return None
    best = max(means, key=lambda name: sign * means[name])
    test = None if best == named else paired(result, "test", named, best)
    return best, (means[named], means[best]), test is not None and test.significant and test.difference < 0


def is_good(result: Comparison, named: str) -> bool:
    """Return whether it took part, was not shown to be worse than the best, and is near it."""
    judged = judge(result, named)
    return judged is not None and not judged[2] and is_near(result.study.metric, *judged[1])


def is_near(metric: str, named: float, best: float) -> bool:
    """Allow two points of a share, or two hundredths of a perplexity."""
    return abs(named - best) <= NEAR * _unit(metric, best)


def _unit(metric: str, best: float) -> float:
    """Return the number that a point is a hundredth of."""
    return best if metric == "perplexity" else 1.0


def _table(title: str, head: Row, rows: Iterator[Row]) -> Iterator[str]:
    yield from (f"### {title}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head))
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3g}"


if __name__ == "__main__":
    main()
