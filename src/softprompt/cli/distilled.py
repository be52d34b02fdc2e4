"""The printed report of a distillation: what the vectors keep, what is saved, and samples side by side."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .output import duration, number, size, table

if TYPE_CHECKING:
    from ..distillation.measure import Figures
    from ..distillation.run import Distilled

SHOWN = 200  # characters of a sample
FEW = 20  # requests: with fewer, the interval says little
HEADS: dict[str, str] = {
    "kl": "nats from the text",
    "agreement": "same token",
    "chrf": "chrF",
    "exact_match": "same answer",
}


def _curve(result: Distilled) -> str:
    """Draw the share of the text's effect against the number of vectors."""
    kept = result.report()["vectors"]
    rows: list[tuple[str, ...]] = [("vectors", "share kept on the dev requests", "")]
    for point in result.curve:
        share, low, high = (100 * value for value in point.share)
        mark = " kept" if point.vectors == kept else ""
        bar = "#" * round(max(0.0, min(share, 100.0)) / 4)
        rows.append((str(point.vectors), f"{share:.0f} % [{low:.0f}, {high:.0f}]", bar + mark))
    return table(rows, right=range(1))


def report_text(result: Distilled) -> str:
    """Return the report as the command prints it."""
    figures, path = result.comparison, result.run.artifact.path
    n = figures.ways["vectors"]["n"]
    few = [f"note: {n} requests say little of others; give more of them"] if n < FEW else []
    parts = [figures.headline, *few, ways_table("ahead of the request", figures.ways)]
    if figures.references:
        parts += ["", "against the right answers:", ways_table("ahead of the request", figures.references)]
    for part, ways in figures.parts.items():
        parts += ["", f"{part} ({ways['vectors']['n']} requests):", ways_table("ahead of the request", ways)]
    parts += ["", "tests of the vectors, corrected (Holm):", _tests(figures), "", table(_facts(result))]
    parts += samples_text(figures.samples)
    if result.curve:
        parts += ["", _curve(result)]
    return "\n".join([*parts, "", "next:", *(f"  {line}" for line in next_commands(str(path), result))])


def next_commands(path: str, result: Distilled) -> list[str]:
    """Return the commands that follow a distillation."""
    folder = shlex.quote(path)
    return [
        f'softprompt generate {folder} "your request"',
        f"softprompt report {folder} --open",
        f"softprompt eval {folder} --data {shlex.quote(str(result.folder / 'requests.jsonl'))}",
        f"softprompt serve {folder}",
    ]


def samples_text(samples: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the lines of requests that are answered side by side."""
    lines: list[str] = []
    for sample in samples:
        lines += ["", f"request: {_short(sample['request'])}"]
        lines += [f"  {name + ':':<9} {_short(sample[name])}" for name in ("text", "vectors", "no text")]
    return lines


def ways_table(title: str, ways: Mapping[str, dict[str, Any]]) -> str:
    """Return the table of the ways to answer, with intervals."""
    metrics = list(ways["vectors"]["metrics"])
    rows: list[tuple[str, ...]] = [(title, *(HEADS.get(str(name), str(name)) for name in metrics))]
    rows += [(name, *(_score(way, key) for key in metrics)) for name, way in ways.items()]
    return table(rows, right=range(1, 1 + len(metrics)))


def _score(way: Mapping[str, Any], metric: str) -> str:
    """Write a figure with its interval: `0.042 [0.031, 0.055]`."""
    value, interval = way["metrics"].get(metric), way["intervals"].get(metric)
    form = _points if metric in ("chrf", "bleu") else _figure
    return form(value) + ("" if interval is None else f" [{form(interval[0])}, {form(interval[1])}]")


def _tests(figures: Figures) -> str:
    rows: list[tuple[str, ...]] = [("vectors against", "measure", "difference", "p", "shown")]
    for test in figures.tests:
        better = (test["difference"] < 0) == (test["metric"] == "kl")
        shown = ("better" if better else "worse") if test["significant"] else "no difference"
        bounds = [test["low"], test["high"]]
        interval = "" if None in bounds else f" [{number(bounds[0])}, {number(bounds[1])}]"
        rows.append(
            (
                test["b"],
                HEADS[test["metric"]],
                f"{number(test['difference'])}{interval}",
                f"{test['p_adjusted']:.3f}",
                shown,
            )
        )
    return table(rows, right=(3,))


def _facts(result: Distilled) -> list[tuple[str, str]]:
    from ..distillation.report_blocks import saved

    figures, artifact = result.comparison, result.run.artifact
    first, paid = figures.first_token, figures.paid_after
    seeds = ""
    if len(figures.seeds) > 1:
        shares = ", ".join(f"{100 * share:.0f} %" for share in figures.shares.values())
        seeds = f"; of {len(figures.seeds)} seeds ({shares}) the best on the dev rows: {figures.seeds[0]}"
    facts = [
        ("artifact", f"{artifact.path} ({size(artifact.bytes)}){seeds}"),
        ("tokens saved a request", saved(figures.text_tokens, figures.soft_tokens)),
        (
            "first token",
            f"{1e3 * first['text']:.0f} ms with the text, {1e3 * first['vectors']:.0f} ms with the vectors",
        ),
        ("a million requests", _million(figures)),
        ("took", _took(figures)),
        ("the start", _start(result)),
        ("paid for", "the vectors save no time here" if paid is None else f"after {paid:,.0f} requests"),
        (
            "teacher's answers",
            f"{figures.answered[0]} of {figures.answered[1]} are complete: {result.folder}",
        ),
    ]
    if figures.leakage is not None:
        facts.insert(-1, ("unrelated text", _leakage(figures.leakage)))
    return facts


def _million(figures: Figures) -> str:
    """Write the price of a million requests, in time and, with a price an hour, in money."""
    costs = figures.million
    text = (
        f"{duration(costs['text']['seconds'])} of this machine with the text, "
        f"{duration(costs['vectors']['seconds'])} with the vectors, up to the first token"
    )
    if figures.price_hour is None:
        return f"{text} (--price-hour gives the price)"
    prices = [f"{costs[name]['price']:,.2f}" for name in ("text", "vectors")]
    return f"{text}: {prices[0]} and {prices[1]} at {figures.price_hour:g} an hour"


def _took(figures: Figures) -> str:
    if figures.price_hour is None:
        return duration(figures.seconds)
    return f"{duration(figures.seconds)}: {figures.seconds / 3600 * figures.price_hour:,.2f}"


def _start(result: Distilled) -> str:
    """Write how long the vectors' start took, and whether they were trained from there."""
    steps = result.run.prepared.recipe.train.steps
    trained = f"then trained for {steps} steps" if steps else "and not trained: the vectors are the start"
    return f"{duration(result.comparison.start_seconds)}, {trained}"


def _leakage(leakage: Mapping[str, Any]) -> str:
    """Write the change of the loss on unrelated text."""
    shown = []
    for name, words in (("before", "before training"), ("after", "after")):
        if (change := leakage[name]) is not None:
            bounds = f"[{change['low']:+.3f}, {change['high']:+.3f}]"
            shown.append(f"{change['value']:+.3f} {bounds} {words}")
    return f"{', '.join(shown)}; nats a token more than without vectors (0: no harm)"


def _figure(value: float | None) -> str:
    """Write a figure with three decimals: what rounding leaves of 0 is 0."""
    return "n/a" if value is None else f"{value + 0.0:.3f}".replace("-0.000", "0.000")


def _points(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}"


def _short(text: str) -> str:
    """Return a text in one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]} …"
