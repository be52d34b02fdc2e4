"""Count how often the method that a comparison names is within the margin of the best, on simulated scores.

    python -m benchmarks.verdict [--sets 100] [--rows 20 60 200 1000] [--seed-sd 0.1]

Each set has five methods with true accuracies around 70 % and costs that have nothing to do with them. Scores
are right or wrong: row + method × row + seed + seed × row is above a threshold, all normal. The old rule took
the cheapest of those that no test showed to be worse than the highest score. The new rule is the library's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import ndtri

from softprompt.compare.report.decision import Decision, decide, standings
from softprompt.compare.report.schema import PairTest
from softprompt.evaluation.stats.bootstrap import row_draws
from softprompt.evaluation.stats.joint import joint_draws
from softprompt.evaluation.stats.scores import Scores
from softprompt.evaluation.stats.significance import compare

METHODS, CENTRE, MARGIN = 5, 0.7, 0.02
ROW, OWN_ROW, REST = 1.0, 0.5, 0.5  # standard deviations
SEED = 0.1  # moves an accuracy by two to three points
RESAMPLES = 1000
ABOUT = {"split": "test", "metric": "accuracy"}


@dataclass(frozen=True)
class Named:
    """A rule names a method in a set: its true distance to the best, and what the rule states."""

    loss: float
    tells: bool = False
    within: float = 0.0  # stated probability of being within the margin of the best


def drawn(
    rng: np.random.Generator, rows: int, seeds: int, points: float, seed_sd: float
) -> tuple[np.ndarray, list[Scores]]:
    """Draw true accuracies `[M]`, `points` apart (a standard deviation), and the scores of each method."""
    true = np.clip(CENTRE + points / 100 * rng.standard_normal(METHODS), 0.05, 0.95)
    row, spread = rng.normal(0, ROW, rows), np.sqrt(ROW**2 + OWN_ROW**2 + seed_sd**2 + REST**2)
    scores = []
    for name, accuracy in enumerate(true):
        x = spread * ndtri(accuracy) + row + rng.normal(0, OWN_ROW, rows)
        x = x + rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, REST, (seeds, rows))
        scores.append(Scores(str(name), (x > 0) * 1.0))
    return true, scores


def old_rule(scores: dict[str, float], tests: Sequence[PairTest], prices: dict[str, float]) -> str:
    """Name the cheapest of those that no test shows to be worse than the highest score or each other."""
    worse = {(t.b, t.a) if t.difference > 0 else (t.a, t.b) for t in tests if t.significant}
    best = max(scores, key=lambda name: scores[name])
    equals = [name for name in scores if (name, best) not in worse]
    equals = [name for name in equals if not any((name, other) in worse for other in equals)]
    return min(equals, key=lambda name: prices[name])


def new_rule(
    of: Sequence[Scores], scores: dict[str, float], tests: Sequence[PairTest], prices: dict[str, float]
) -> Decision:
    """Name a method as a comparison does."""
    values = np.clip(joint_draws(of, row_draws(of, RESAMPLES, 0), span=1.0), 0, 1)
    by_name = {each.name: values[:, m].tolist() for m, each in enumerate(of)}
    held = standings(by_name, **ABOUT, margin=MARGIN, higher_is_better=True)
    known = {item.contestant: item for item in held}
    costs = {name: (price,) for name, price in prices.items()}
    return decide(scores, tests, known, costs, margin=MARGIN, higher_is_better=True)


def simulate(
    sets: int, rows: int, seeds: int, points: float, seed_sd: float = SEED
) -> dict[str, list[Named]]:
    """Name a method in each of so many sets by either rule, and by the highest score alone."""
    rng, named = np.random.default_rng(rows + seeds), {"old": [], "new": [], "highest": []}
    for _ in range(sets):
        true, of = drawn(rng, rows, seeds, points, seed_sd)
        loss = {each.name: float(true.max() - true[m]) for m, each in enumerate(of)}
        scores = {each.name: float(each.values.mean()) for each in of}
        prices = dict(zip(scores, rng.permutation(METHODS).astype(float).tolist(), strict=True))
        keys = {item.name for item in fields(PairTest)}
        tests = []
        for test in compare(of, resamples=RESAMPLES, span=1.0, margin=MARGIN):
            known = {key: value for key, value in vars(test).items() if key in keys}
            tests.append(PairTest(**ABOUT, **known))
        decision = new_rule(of, scores, tests, prices)
        stated = decision.standings[decision.chosen].within
        named["old"].append(Named(loss[old_rule(scores, tests, prices)]))
        named["new"].append(Named(loss[decision.chosen], decision.tells, stated))
        named["highest"].append(Named(loss[max(scores, key=lambda name: scores[name])]))
    return named


def line(sets: int, rows: int, seeds: int, points: float, seed_sd: float) -> list[str]:
    """Return the cells of one line of the table."""
    named = simulate(sets, rows, seeds, points, seed_sd)

    def good(part: Sequence[Named]) -> str:
        return f"{100 * np.mean([each.loss <= MARGIN for each in part]):.0f}" if part else "–"

    def lost(part: Sequence[Named]) -> str:
        return f"{100 * np.mean([each.loss for each in part]):.1f}"

    new = named["new"]
    sure, unsure = [n for n in new if n.tells], [n for n in new if not n.tells]
    stated = f"{100 * np.mean([each.within for each in unsure]):.0f}" if unsure else "–"
    cells = [f"{points:g}", str(rows), str(seeds), good(named["old"]), good(new), good(named["highest"])]
    cells += [
        lost(named["old"]),
        lost(new),
        f"{100 * len(sure) / sets:.0f}",
        good(sure),
        stated,
        good(unsure),
    ]
    return cells


HEAD = ["apart, points", "test rows", "seeds", "old: within 2 points, %", "new: within, %"]
HEAD += ["highest score: within, %", "old: lost, points", "new: lost, points", "rows tell, %"]
HEAD += ["where they tell: within, %", "where not: stated, %", "where not: within, %"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=100, help="simulated comparisons a line (100)")
    parser.add_argument("--rows", type=int, nargs="+", default=[20, 60, 200, 1000], help="test rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--apart", type=float, nargs="+", default=[2.0, 8.0], help="points between methods")
    parser.add_argument("--seed-sd", type=float, default=SEED, help=f"how much seeds differ ({SEED})")
    args = parser.parse_args(arguments)
    print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
    for points in args.apart:
        for rows in args.rows:
            for seeds in args.seeds:
                print(
                    "| " + " | ".join(line(args.sets, rows, seeds, points, args.seed_sd)) + " |", flush=True
                )


if __name__ == "__main__":
    main()
