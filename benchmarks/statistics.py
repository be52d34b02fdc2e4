"""Count how often a comparison's statistics err on simulated scores: the tables of docs/measures.md.

    python -m benchmarks.statistics

Scores are row + method × row + seed + seed × row, normal, with standard deviations 1, 0.5, as given, 0.5;
"right or wrong" asks whether that is above 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from softprompt.evaluation.stats import bootstrap
from softprompt.evaluation.stats.power import detectable
from softprompt.evaluation.stats.scores import Scores
from softprompt.evaluation.stats.significance import compare
from softprompt.evaluation.stats.variance import noise, seed_noise

SETS = 2000


def drawn(rng, seeds: int, rows: int, seed_sds: Sequence[float], means: Sequence[float], binary: bool):
    """Draw scores of as many methods as there are `seed_sds`, on the same rows."""
    row = rng.normal(0, 1, rows)
    for sd, mean in zip(seed_sds, means, strict=True):
        noisy = row + rng.normal(0, 0.5, rows) + rng.normal(0, 0.5, (seeds, rows))
        x = mean + noisy + rng.normal(0, sd, (seeds, 1))
        yield Scores("", (x > 0) * 1.0 if binary else x)


def pairs(seeds: int, rows: int, sds: tuple[float, float], binary: bool = False, mean: float = 0.0) -> dict:
    """Compare simulated pairs of methods, each alone, and return the rates of claims and coverage."""
    rng, noises, differences, plain = np.random.default_rng(0), [], [], []
    drawn_rows = rng.multinomial(rows, np.full(rows, 1 / rows), 1000) / rows
    for k in range(SETS):
        a, b = drawn(rng, seeds, rows, sds, (mean, 0), binary)
        noises.append(noise((a, b), seed_noise((a, b))))
        differences.append(a.values.mean(axis=0) - b.values.mean(axis=0))
        if k < 500:  # seeds with replacement, as rows
            picked = rng.multinomial(seeds, np.full(seeds, 1 / seeds), (2, 1000)) / seeds
            sides = [((drawn_rows @ s.values.T) * w).sum(axis=1) for s, w in zip((a, b), picked, strict=True)]
            low, high = np.percentile(sides[0] - sides[1], [2.5, 97.5])
            plain.append(low <= mean <= high)
    differences = np.array(differences)
    observed = differences.mean(axis=1)
    variance, df = map(np.array, zip(*(n.of_seeds(rows) for n in noises), strict=True))
    of_seeds = bootstrap.seed_draws(variance, df, 2000, 0)
    flips = bootstrap.sign_flips(differences, 2000, 0)
    both = [Scores("", np.stack([d, d])) for d in differences]
    low, high = np.percentile(bootstrap.row_draws(both, 2000, 0) + of_seeds, [2.5, 97.5], axis=0)
    return {
        "test": (bootstrap.p_values(observed, flips + of_seeds) <= 0.05).mean(),
        "rows alone": (bootstrap.p_values(observed, flips) <= 0.05).mean(),
        "interval": ((low <= mean) & (mean <= high)).mean(),
        "seeds with replacement": np.mean(plain),
        "stated": np.mean([float(detectable(n, rows)) for n in noises]),
    }


def families(seeds: int, sds: Sequence[float], mean: float) -> tuple[float, float]:
    """Return how often many equal methods give a false claim, and the share of true differences detected."""
    rng, sets, false, detected = np.random.default_rng(1), 300, 0, 0.0
    for _ in range(sets):
        alike = list(drawn(rng, seeds, 300, sds, [0.0] * len(sds), False))
        false += any(c.significant for c in compare(alike, resamples=2000))
        ahead = list(drawn(rng, seeds, 300, sds, [mean] + [0.0] * (len(sds) - 1), False))
        detected += np.mean([c.significant for c in compare(ahead, resamples=2000)[: len(sds) - 1]])
    return false / sets, detected / sets


def main() -> None:
    print("| seeds | rows | seeds' sd | test | rows alone | interval holds | seeds with replacement |")
    for seeds in (1, 2, 3, 5):
        for rows in (50, 200, 500):
            for sds in ((0, 0), (0.1, 0.1), (0.3, 0.3), (0.3, 0)) if seeds > 1 else ((0, 0),):
                detected = pairs(seeds, rows, sds)
                of = [(0, 0), (0.3, 0.3)][: 1 if seeds == 1 else 2]
            shares = [pairs(seeds, rows, sds, True)["test"] for sds in of]
            print(seeds, rows, [f"{100 * share:.1f}" for share in shares], flush=True)
    print("power at what is stated as detectable:")
    for seeds, sd in ((1, 0.0), (3, 0.0), (3, 0.1), (3, 0.3), (5, 0.1), (5, 0.3)):
        stated = float(pairs(seeds, 200, (sd, sd))["stated"])
        detected = pairs(seeds, 200, (sd, sd), mean=stated)["test"]
        print(seeds, sd, f"{stated:.3f} {100 * detected:.1f}", flush=True)
    print("eight methods: any false claim, one that is 0.5 ahead found")
    for seeds in (2, 3, 5):
        for sds in ([0.1] * 8, [0.1] * 7 + [0.4], np.geomspace(0.05, 0.5, 8).round(2).tolist()):
            shares = families(seeds, sds, 0.5)
            print(seeds, sds, *(f"{100 * share:.1f}" for share in shares), flush=True)


if __name__ == "__main__":
    main()
