"""Which method is named, and that none is called better without a test that showed it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from softprompt.compare import report
from softprompt.compare.report.answer import answer
from softprompt.compare.report.read import comparison
from softprompt.compare.report.schema import Comparison, Contestant, PairTest, Score, Standing, Study, Trial
from softprompt.compare.report.summary import notes, outcome_text
from softprompt.compare.report.verdict import verdict


def made(values, seconds, tests, references=(), higher=True, unseen=(), width=0.01):
    """A comparison from `{name: value}`, `{name: seconds}` and `(a, b, difference, significant)`.

    Intervals reach `width` to each side of the difference.
    """
    names = [Contestant(name, is_reference=name in references) for name in values]
    found = Comparison(
        Path("made"), Study("accuracy" if higher else "perplexity", names, higher_is_better=higher)
    )
    for name, value in values.items():
        metric = {found.study.metric: {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 100}}
        found.scores.append(Score(name, "test", metric, seed=0))
    found.trials = [Trial(n, n, "final", "done", cost={"train_seconds": s}) for n, s in seconds.items()]
    for split, some in (("test", tests), ("unseen", unseen)):
        for a, b, difference, significant in some:
            bounds = (difference - width, difference + width)
            test = PairTest(
                split, found.study.metric, a, b, difference, significant, *bounds, rows_needed=2345
            )
            found.tests.append(test)
    if unseen:
        found.scores.append(Score("a", "unseen", found.scores[0].metrics, seed=0))
    return found


def decided(found):
    result = verdict(found)
    assert result is not None
    return result, *answer(found, result)


def test_a_clear_winner_is_named_with_its_interval():
    found = made(
        {"a": 0.9, "b": 0.8, "c": 0.7},
        {"a": 9, "b": 1, "c": 1},
        [("b", "a", -0.1, True), ("a", "c", 0.2, True)],
    )
    result, headline, sentences = decided(found)
    assert (result.chosen, result.decision.equals) == ("a", ["a"]) and headline == "Take a"
    assert (
        "a is better than each of the 2 other methods: than b, the nearest, by 10.0 points (9.0 … 11.0)"
        in (sentences[0].replace("\u00a0", " "))
    )


def test_among_equals_the_cheapest_is_taken():
    found = made({"a": 0.85, "b": 0.84}, {"a": 80, "b": 12}, [("a", "b", 0.009, False)])
    result, headline, (first, second) = decided(found)
    assert result.chosen == "b" and result.decision.likeliest == "a" and headline == "Take b"
    assert first == "b equals a within 2 points: take the cheaper, b (12 s to train; the other 80 s)."
    assert "a, the likeliest best, scored higher by 0.9 points" in second
    assert "better" not in first + second


def test_a_difference_that_was_not_shown_is_no_equality():
    """The interval reaches beyond the margin: the cheaper one is not named, and the headline says why."""
    values, tests = {"a": 0.85, "b": 0.84}, [("a", "b", 0.009, False)]
    found = made(values, {"a": 80, "b": 12}, tests, width=0.03)
    result, headline, sentences = decided(found)
    assert result.chosen == "a" and not result.decision.tells and result.decision.undecided == ["b"]
    # 0.009 is 0.59 standard errors of 0.03 / 1.96: normal.cdf(0.588) is 0.722
    assert re.fullmatch(
        r"These rows do not tell which method is best: a is the likeliest \(7[0-4].%\)", headline
    )
    text = " ".join(sentences).replace("\u00a0", " ")
    assert "If you must choose now, take a: it scored 85.0 %" in text
    # half the mean of a normal beyond 0: 0.0153 (pdf(0.588) - 0.588 cdf(-0.588)) is 0.0026
    assert re.search(
        "expected loss of this choice against the best is 0.[23] points; if it is wrong, [01].[0-9]", text
    )
    found.study = replace(found.study, margin=4.0)
    assert decided(found)[1] == "Take b"


def test_cost_decides_among_equals_of_the_likeliest_alone():
    """c is the cheapest, but nothing shows that it equals a; b does."""
    tests = [("a", "b", 0.005, False), ("a", "c", 0.01, False), ("b", "c", 0.005, False)]
    found = made({"a": 0.85, "b": 0.845, "c": 0.84}, {"a": 80, "b": 12, "c": 1}, tests)
    found.tests[1] = replace(found.tests[1], low=-0.2, high=0.22)
    result, headline, sentences = decided(found)
    assert result.chosen == "b" and result.decision.undecided == ["c"]
    assert headline.startswith("These rows do not tell")
    likeliest = result.decision.likeliest
    if likeliest == "a":
        assert "take b, which equals a within 2 points (12 s to train; the other 80 s)" in sentences[0]


def test_a_difference_within_the_margin_is_shown_and_does_not_matter():
    found = made({"a": 0.85, "b": 0.84}, {"a": 80, "b": 12}, [("a", "b", 0.01, True)], width=0.005)
    result, headline, _ = decided(found)
    assert result.chosen == "b" and headline == "Take b"
    assert outcome_text(found, found.tests[0])[0].startswith("a is better than b by 1.0 points")


def test_the_margin_of_a_metric_without_a_range_is_a_share_of_the_best():
    tests = [("a", "b", -0.1, False)]
    found = made({"a": 9.0, "b": 9.1}, {"a": 80, "b": 12}, tests, higher=False, width=0.05)
    assert decided(found)[1] == "Take b"  # 2 % of 9 is 0.18
    found.tests[0] = replace(found.tests[0], low=-0.19)
    assert decided(found)[1].startswith("These rows do not tell")


def test_equal_scores_in_every_row_of_an_older_file_are_no_equality():
    found = made({"a": 0.85, "b": 0.85}, {"a": 80, "b": 12}, [("a", "b", 0.0, False)], width=0.0)
    assert not decided(found)[0].decision.tells


def test_how_many_rows_would_tell():
    found = made({"a": 0.85, "b": 0.8}, {"a": 80, "b": 12}, [("a", "b", 0.05, False)], width=0.06)
    assert "about 2,300 test rows would tell (80 % power, margin 2 points)" in decided(found)[2][-1]
    held = [Standing(name, "test", "accuracy", 0.5, 0.6, 0.01) for name in "ab"]
    found.standings, found.tests[0] = held, replace(found.tests[0], rows_needed=None)
    assert "No number of test rows would tell of b" in decided(found)[2][-1]
    found.tests[0] = replace(found.tests[0], rows_to_tell=412)
    assert "about 410 test rows would tell" in decided(found)[2][-1]


def test_a_reference_within_the_margin_is_kept():
    """Training brought less than the margin, shown or not; with a wide interval that is not known."""
    for significant in (True, False):
        tests = [("a", "zero", 0.008, significant)]
        found = made({"a": 0.85, "zero": 0.842}, {"a": 9}, tests, references=["zero"], width=0.007)
        _, headline, (first, *_) = decided(found)
        assert headline == "Keep zero" and first.startswith(
            "a equals zero within 2 points: training gained 0.8"
        )
    found.tests[0] = replace(found.tests[0], high=0.03)
    assert decided(found)[1] == "a, but it was not shown to beat zero"


def test_where_lower_is_better():
    found = made({"a": 9.0, "b": 10.0}, {"a": 80, "b": 1}, [("a", "b", -1.0, True)], higher=False)
    result, _, sentences = decided(found)
    assert result.chosen == "a" and "a is better than b by 1.00 (0.99" in sentences[0]
    assert "lower is better" in sentences[1]


def test_a_reference_that_is_better_is_kept():
    found = made({"a": 0.7, "tf-idf": 0.8}, {"a": 9}, [("a", "tf-idf", -0.1, True)], references=["tf-idf"])
    _, headline, sentences = decided(found)
    assert headline == "Keep tf-idf" and sentences[0].startswith("tf-idf is better than a by 10.0 points")


def test_one_that_a_reference_beats_is_passed_over():
    tests = [("a", "b", 0.01, False), ("b", "zero", -0.1, True), ("a", "zero", -0.09, False)]
    found = made({"a": 0.85, "b": 0.84, "zero": 0.94}, {"a": 80, "b": 12}, tests, references=["zero"])
    _, headline, _ = decided(found)
    assert headline == "a, but it was not shown to beat zero"


def test_the_cheapest_of_those_that_beat_the_references():
    tests = [("a", "b", 0.01, False), ("a", "zero", 0.1, True), ("b", "zero", 0.09, False)]
    found = made({"a": 0.85, "b": 0.84, "zero": 0.75}, {"a": 80, "b": 12}, tests, references=["zero"])
    result, headline, (first, _) = decided(found)
    assert result.chosen == "a" and headline == "Take a" and "shown to beat most references" in first
    found.tests[1] = PairTest("test", "accuracy", "a", "zero", 0.1, False)
    result, headline, _ = decided(found)
    assert result.chosen == "b" and headline == "b, but it was not shown to beat zero"


def test_without_tests_nothing_is_better():
    _, headline, sentences = decided(made({"a": 0.9, "b": 0.2}, {"a": 9, "b": 8}, []))
    assert headline == "These rows do not tell which method is best: a has the highest score"
    text = " ".join(sentences)
    assert "better" not in text and "No test compared a with b." in text


def test_nothing_scored():
    found = made({"a": 0.9}, {}, [])
    found.scores.clear()
    assert verdict(found) is None and answer(found, None)[0] == "No answer yet"


def test_another_order_on_unseen_rows_is_noted():
    found = made({"a": 0.9, "b": 0.8}, {}, [("a", "b", 0.1, True)], unseen=[("b", "a", 0.2, True)])
    assert "On unseen rows b was shown to be better." in notes(found, verdict(found))


@pytest.mark.parametrize(("first", "words"), [("a", "between a and b"), ("b", "between b and a")])
def test_a_test_without_a_difference_says_how_many_rows_could_show_one(first, words):
    found = made({"a": 0.85, "b": 0.84}, {}, [("a", "b", 0.009, False)], width=0.03)
    sentence, by = outcome_text(found, found.tests[0], first)
    assert sentence == f"No difference was shown {words}; about 2,300 rows could show one"
    assert by.startswith("0.9" if first == "a" else "−0.9")


@pytest.mark.parametrize("task", ["classification", "generation"])
@pytest.mark.parametrize("draw", range(3))
def test_better_is_written_only_where_a_test_showed_it(build, task, draw):
    """Over whole reports: every 'x is better than y' is a significant test in that direction."""
    folder = build(task=task, draw=draw, splits={"test": 40, "unseen": 30})
    report.write(folder)
    text = (folder / "report.md").read_text()
    shown = {
        (t.a, t.b) if t.difference > 0 else (t.b, t.a) for t in comparison(folder).tests if t.significant
    }
    pairs = re.findall(r"(\S+) is better than (\S+?)(?:, a reference,)? by", text)
    assert len(pairs) == text.count("is better than") - text.count("is better than each of")
    chosen = decided(comparison(folder))[0].chosen
    assert {(chosen if a.lower() == "it" else a, b) for a, b in pairs} == shown
