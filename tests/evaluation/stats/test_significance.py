"""Against scipy where it has the same, and on simulated scores whose answer is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from softprompt.errors import SoftPromptError
from softprompt.evaluation.metrics import METRICS, Inputs
from softprompt.evaluation.stats import bootstrap
from softprompt.evaluation.stats.calibration import calibration
from softprompt.evaluation.stats.power import detectable, rows_needed, seeds_needed
from softprompt.evaluation.stats.scores import Scores, of_statistic, of_sums
from softprompt.evaluation.stats.significance import compare, holm, summarise
from softprompt.evaluation.stats.variance import Noise, SeedNoise, noise, seed_noise


def drawn(rng, seeds: int, rows: int, seed_sd: float, mean=0.0, row=None, kind="normal") -> np.ndarray:
    """Scores [S, N]: `row` [N] is what the rows give both methods, the rest is this method's own."""
    x = mean + (rng.normal(0, 1, rows) if row is None else row) + rng.normal(0, 0.5, rows)
    x = x + rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, 0.5, (seeds, rows))
    return (x > 0) * 1.0 if kind == "right or wrong" else x


@dataclass
class Pairs:
    """Simulated pairs of methods, each compared alone: p [sets], and p of rows without seeds."""

    noises: list[Noise]
    p: np.ndarray
    rows_alone: np.ndarray


def sets_of_pairs(
    sets: int, seeds: int, rows: int, seed_sd: float, mean=0.0, kind="normal", b_sd=None
) -> Pairs:
    rng, noises, differences = np.random.default_rng(7), [], []
    for _ in range(sets):
        row = rng.normal(0, 1, rows)
        a = Scores("a", drawn(rng, seeds, rows, seed_sd, mean, row, kind))
        b = Scores("b", drawn(rng, seeds, rows, seed_sd if b_sd is None else b_sd, 0, row, kind))
        noises.append(noise((a, b), seed_noise((a, b))))
        differences.append(a.values.mean(axis=0) - b.values.mean(axis=0))
    differences = np.array(differences)
    variance, df = map(np.array, zip(*(n.of_seeds(rows) for n in noises), strict=True))
    flips = bootstrap.sign_flips(differences, 1000, 0)
    of_seeds = bootstrap.seed_draws(variance, df, 1000, 0)
    observed = differences.mean(axis=1)
    p, rows_alone = (bootstrap.p_values(observed, null) for null in (flips + of_seeds, flips))
    return Pairs(noises, p, rows_alone)


def most(rate: float, sets: int) -> float:
    """What a rate may seem at most in so many sets: passed by chance once in a thousand times."""
    return float(stats.binom.ppf(0.999, sets, rate)) / sets


# --- the error rates ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "right or wrong"])
@pytest.mark.parametrize("rows", [50, 300])
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_no_difference_is_rarely_called_one(seeds, rows, kind):
    for seed_sd in (0.0, 0.1, 0.4) if seeds > 1 else (0.0,):
        pairs = sets_of_pairs(600, seeds, rows, seed_sd, kind=kind)
        assert (pairs.p <= 0.05).mean() <= most(0.05, 600), seed_sd


@pytest.mark.parametrize("b_sd", [0.3, 0.0])
def test_rows_alone_would_call_the_noise_of_seeds_a_difference(b_sd):
    pairs = sets_of_pairs(600, 3, 300, 0.3, b_sd=b_sd)
    assert (pairs.rows_alone <= 0.05).mean() > 0.4
    # 7 % where the noise of one method is all there is: docs/measures.md
    assert (pairs.p <= 0.05).mean() <= most(0.07 if b_sd == 0 else 0.05, 600)


@pytest.mark.slow
@pytest.mark.parametrize("seed_sds", [[0.2] * 6, [0.1] * 5 + [0.4], [0.05, 0.08, 0.13, 0.2, 0.3, 0.5]])
def test_many_methods_rarely_lead_to_any_false_claim(seed_sds):
    rng, wrong, sets = np.random.default_rng(3), 0, 150
    for _ in range(sets):
        row = rng.normal(0, 1, 100)
        of = [Scores(str(sd), drawn(rng, 3, 100, sd, row=row)) for sd in seed_sds]
        wrong += any(c.significant for c in compare(of, resamples=1000))
    assert wrong / sets <= most(0.05, sets)


@pytest.mark.parametrize("kind", ["normal", "right or wrong"])
@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0), (3, 0), (3, 0.1), (3, 0.3), (5, 0.3)])
def test_a_detectable_difference_is_found_at_the_stated_power(seeds, seed_sd, kind):
    none = sets_of_pairs(300, seeds, 200, seed_sd, kind=kind)
    stated = np.mean([float(detectable(one, 200)) for one in none.noises])
    # the shift of the normal scores that changes the share of right answers by so much
    spread = (1 + 0.5**2 + 0.5**2 + seed_sd**2) ** 0.5
    mean = spread * stats.norm.ppf(0.5 + stated) if kind == "right or wrong" else stated
    p = sets_of_pairs(600, seeds, 200, seed_sd, mean=mean, kind=kind).p
    assert (p <= 0.05).mean() == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize(("seeds", "seed_sds"), [(1, (0, 0)), (3, (0, 0)), (3, (0.3, 0.3)), (5, (0.3, 0))])
def test_intervals_hold_the_true_difference_as_often_as_they_say(seeds, seed_sds):
    rng, held, sets = np.random.default_rng(4), 0, 300
    for _ in range(sets):
        row = rng.normal(0, 1, 100)
        of = [Scores(str(m), drawn(rng, seeds, 100, sd, m, row)) for m, sd in enumerate(seed_sds)]
        pair = compare(of, resamples=1000)[0]
        held += pair.low <= -1 <= pair.high
    assert held / sets >= 1 - most(0.05, sets)


# --- against scipy ------------------------------------------------------------------------------


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Right and wrong answers of two methods with one seed each, [1, 120]."""
    rng = np.random.default_rng(0)
    row = rng.normal(0, 1, 120)
    a, b = (drawn(rng, 1, 120, 0, mean, row, "right or wrong") for mean in (0.3, 0))
    return a, b


def test_with_one_seed_it_is_the_paired_permutation_test(pair):
    a, b = pair
    ours = compare([Scores("a", a), Scores("b", b)])[0]
    theirs = stats.permutation_test(
        (a[0], b[0]),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    )
    assert ours.difference == pytest.approx(theirs.statistic)
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.015)
    assert 0.01 < ours.p < 0.5  # or the comparison above would tell little


def test_with_one_seed_it_nears_the_paired_t_test_and_its_interval():
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.15, 1, (1, 200)), rng.normal(0, 1, (1, 200))
    ours, theirs = compare([Scores("a", a), Scores("b", b)])[0], stats.ttest_rel(a[0], b[0])
    bounds = theirs.confidence_interval()
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.015)
    assert (ours.low, ours.high) == pytest.approx((bounds.low, bounds.high), abs=0.015)


def test_with_one_seed_it_is_the_paired_percentile_bootstrap(pair):
    a, b = pair
    ours = compare([Scores("a", a), Scores("b", b)])[0]
    theirs = stats.bootstrap(
        (a[0], b[0]),
        lambda x, y, axis: (x - y).mean(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_where_rows_do_not_vary_it_is_welchs_t_test():
    rng = np.random.default_rng(3)
    a, b = rng.normal(1, 0.5, (5, 1)), rng.normal(0, 1, (4, 1))
    of = [Scores("a", np.repeat(a, 50, axis=1)), Scores("b", np.repeat(b, 50, axis=1))]
    theirs = stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False)
    bounds = theirs.confidence_interval()
    pair = compare(of, resamples=100_000)[0]
    assert (pair.alone_low, pair.alone_high) == pytest.approx((bounds.low, bounds.high), abs=0.05)
    # signs of 50 rows that agree add a fiftieth of the squared width
    width = bounds.high - bounds.low
    assert width < pair.high - pair.low == pytest.approx(width * (1 + 4 / 50) ** 0.5, abs=0.05)
    both = noise(of, seed_noise(of))
    assert both.of_seeds(50)[1] == pytest.approx(theirs.df)
    draws = bootstrap.seed_draws(*(np.atleast_1d(x) for x in both.of_seeds(50)), 100_000, 0)
    assert bootstrap.p_values(np.array([pair.difference]), draws) == pytest.approx(theirs.pvalue, abs=0.005)


def test_seeds_are_drawn_from_students_distribution():
    df = np.array([2.0, 3.7, 40.0])
    draws = bootstrap.seed_draws(np.array([1.0, 4.0, 9.0]), df, 20_000, 0)
    for column, scale in enumerate((1, 2, 3)):
        assert stats.kstest(draws[:, column] / scale, stats.t(df[column]).cdf).pvalue > 0.001


def test_the_correction_is_holms():
    p = np.random.default_rng(4).uniform(0, 0.2, 30)
    naive, ordered = {}, sorted(p)
    for k, one in enumerate(ordered):
        naive[one] = min(1, max((len(p) - j) * ordered[j] for j in range(k + 1)))
    assert holm(p) == pytest.approx([naive[one] for one in p])


# --- noise and power ----------------------------------------------------------------------------


def test_variances_are_found_again():
    rng = np.random.default_rng(5)
    of = [Scores(name, drawn(rng, 60, 2000, sd)) for name, sd in (("a", 0.3), ("b", 0.6))]
    a, b = seed_noise(of)
    assert a is not None and b is not None
    assert (a.seed, b.seed) == pytest.approx((0.09, 0.36), rel=0.4)
    assert (a.both, b.both) == pytest.approx((0.25, 0.25), rel=0.02)
    assert (a.seeds, a.df) == (60, 59)


def test_a_method_whose_seeds_agree_by_chance_takes_the_others_variance():
    rng = np.random.default_rng(6)
    calm = np.repeat(drawn(rng, 1, 100, 0), 3, axis=0)
    others = [Scores(str(m), drawn(rng, 3, 100, 0.3)) for m in range(4)]
    alone, *_ = seed_noise([Scores("calm", calm), others[0]])
    among, *rest = seed_noise([Scores("calm", calm), *others])
    assert alone is not None and among is not None
    assert alone.seed == 0 and alone.df == 2
    assert among.seed > 0.01 and among.df > 2
    for method, one in zip(others, rest, strict=True):
        by_itself = seed_noise([method])[0]
        assert one is not None and by_itself is not None and one.seed >= by_itself.seed
    assert seed_noise([Scores("floor", calm[:1], fixed=True), Scores("one", calm[:1])]) == [None, None]


def test_what_is_needed_is_what_detects():
    known = Noise(0.5, (SeedNoise(0.0004, 0.1, 3, 2),) * 2)
    rows = rows_needed(known, 0.1)
    assert rows is not None and rows > 100
    assert detectable(known, rows) <= 0.1 < detectable(known, int(0.97 * rows))
    seeds = seeds_needed(known, 1000, 0.08)
    assert seeds is not None and seeds > 2
    assert detectable(known, 1000, seeds) <= 0.08 < detectable(known, 1000, seeds - 1)
    assert detectable(known, 300, 3) == pytest.approx(float(detectable(known, 300)))


def test_no_number_of_rows_helps_against_seeds_nor_of_seeds_against_rows():
    loud_seeds = Noise(0.5, (SeedNoise(0.1, 0.1, 3, 2),) * 2)
    assert rows_needed(loud_seeds, 0.1) is None
    assert seeds_needed(loud_seeds, 100_000, 0.2) is not None
    assert seeds_needed(Noise(0.5, (SeedNoise(0.0, 0.01, 3, 2),) * 2), 50, 0.1) is None
    assert seeds_needed(Noise(0.5, ()), 50, 0.1) is None
    assert rows_needed(loud_seeds, 0.0) is None


# --- metrics that are not means -----------------------------------------------------------------


def test_a_mean_as_a_statistic_is_the_mean():
    rng = np.random.default_rng(8)
    a, b = drawn(rng, 3, 80, 0.1, 0.2), drawn(rng, 3, 80, 0.1)
    direct = compare([Scores("a", a), Scores("b", b)], resamples=500)[0]
    whole = [of_statistic(n, lambda rows, x=x: x[:, rows].mean(axis=1), 80) for n, x in (("a", a), ("b", b))]
    sums = [of_sums(n, np.stack([x, np.ones_like(x)], axis=2), lambda s: s[0] / s[1]) for n, x in
            (("a", a), ("b", b))]  # fmt: skip
    for of in (whole, sums):
        assert of[0].values == pytest.approx(a)
        other = compare(of, resamples=500)[0]
        for field in ("difference", "low", "high", "p", "detectable"):
            assert getattr(other, field) == pytest.approx(getattr(direct, field)), field


@pytest.mark.parametrize("name", ["macro_f1", "bleu", "perplexity"])
def test_corpus_metrics_have_their_own_value_and_standard_error(name):
    rng, rows = np.random.default_rng(9), 150
    of, by_seed = [], []
    for _ in range(2):
        truth = [" ".join(rng.choice(list("abcdefg"), 8)) for _ in range(rows)]
        messages = [" ".join(w if rng.random() < 0.8 else "x" for w in text.split()) for text in truth]
        if name == "macro_f1":
            truth, messages = [text[0] for text in truth], [text[0] for text in messages]
        nll = rng.gamma(2, 5, rows)
        metric = METRICS[name]
        table = np.asarray(
            metric.stats(Inputs(messages, [[text] for text in truth], nll.tolist(), [8] * rows))
        )
        of.append(table)
        by_seed.append(metric.score(table.sum(axis=0)))
    scores = of_sums("a", np.stack(of), METRICS[name].score)
    assert scores.values.mean(axis=1) == pytest.approx(by_seed)  # each seed's value is the metric's own
    # the shares' standard error against the spread of the metric itself over draws of rows
    draws = bootstrap.row_draws([scores], 800, 0)[:, 0]
    share = scores.values.mean(axis=0)
    assert share.std(ddof=1) / rows**0.5 == pytest.approx(draws.std(), rel=0.15)


def test_corpus_metrics_are_paired_by_row():
    """Rows that are hard for both methods leave the difference alone."""
    rng = np.random.default_rng(10)
    nll = rng.gamma(1, 20, (1, 200))
    values = {"a": nll, "b": nll * 1.05}
    of = [
        of_statistic(n, lambda rows, x=x: np.exp(x[:, rows].mean(axis=1) / 10), 200)
        for n, x in values.items()
    ]
    pair, alone = compare(of, resamples=1000)[0], summarise(of, resamples=1000)[0]
    assert pair.significant and pair.high - pair.low < (alone.high - alone.low) / 3


# --- results -----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_and_the_order_of_methods_only_turns_signs():
    rng = np.random.default_rng(11)
    of = [Scores(name, drawn(rng, 3, 60, 0.1)) for name in "abc"]
    assert compare(of, resamples=500) == compare(of, resamples=500)
    assert compare(of, resamples=500) != compare(of, resamples=500, seed=1)
    assert [(c.a, c.b) for c in compare(of, pairs=[(2, 0)], resamples=500)] == [("c", "a")]
    there, back = (compare(of, pairs=[p], resamples=500)[0] for p in ((0, 1), (1, 0)))
    assert there.difference == -back.difference and there.p == pytest.approx(back.p, abs=0.03)


def test_scores_that_are_equal_show_nothing():
    x = drawn(np.random.default_rng(12), 1, 40, 0)
    same = compare([Scores("a", x), Scores("b", x)], resamples=200)[0]
    assert (same.p, same.low, same.high, same.significant, same.rows_needed) == (1, 0, 0, False, None)


def test_seeds_are_summed_up():
    x = drawn(np.random.default_rng(13), 4, 300, 0.3, mean=2)
    summary, floor = summarise([Scores("a", x), Scores("floor", x[:1], fixed=True)], resamples=1000)
    assert summary.mean == pytest.approx(x.mean()) and summary.seed_sd == pytest.approx(
        np.std(x.mean(axis=1), ddof=1)
    )
    assert summary.low < x.mean() < summary.high and summary.high - summary.low > floor.high - floor.low
    assert (summary.n_seeds, floor.n_seeds, floor.seed_sd) == (4, 0, None)


def test_refusals():
    x = np.ones((2, 10))
    for make in (
        lambda: Scores("a", np.ones(10)),
        lambda: Scores("a", np.full((1, 10), np.nan)),
        lambda: Scores("a", x, fixed=True),
        lambda: compare([Scores("a", x), Scores("b", x[:, :5])]),
        lambda: summarise([]),
        lambda: calibration([0.5, 1.2], [True, False]),
        lambda: calibration([], []),
    ):
        with pytest.raises(SoftPromptError):
            make()


# --- calibration --------------------------------------------------------------------------------


def test_calibration_against_a_naive_one():
    rng = np.random.default_rng(14)
    p = rng.permutation(np.linspace(0.3, 1, 200))
    right = rng.random(200) < p**2
    found = calibration(p.tolist(), right.tolist(), bins=8)
    rows = sorted(zip(p, right, strict=True))
    naive = 0.0
    for start in range(0, 200, 25):
        some = rows[start : start + 25]
        naive += abs(sum(c for c, _ in some) - sum(r for _, r in some)) / 200
    assert found.ece == pytest.approx(naive) and [b.n for b in found.bins] == [25] * 8
    assert found.brier == pytest.approx(sum((c - r) ** 2 for c, r in rows) / 200)
    assert found.ece > 2 * found.by_chance  # overconfident, and more rows than chance explains


def test_equal_confidences_share_a_bin_whatever_the_order_of_rows():
    p, right = [0.9] * 50 + [0.5] * 3, [True] * 45 + [False] * 5 + [True, False, False]
    order = np.random.default_rng(15).permutation(53)
    first = calibration(p, right)
    assert first == calibration([p[i] for i in order], [right[i] for i in order])
    assert [(b.n, round(b.accuracy, 3)) for b in first.bins] == [(3, 0.333), (50, 0.9)]
    assert sum(b.n for b in calibration([0.2, 0.4], [True, False], bins=10).bins) == 2


def test_perfect_calibration_shows_what_chance_explains():
    rng = np.random.default_rng(16)
    found = []
    for _ in range(200):
        p = rng.uniform(0.4, 1, 150)
        found.append(calibration(p.tolist(), (rng.random(150) < p).tolist()))
    assert np.mean([c.ece for c in found]) == pytest.approx(np.mean([c.by_chance for c in found]), rel=0.1)
