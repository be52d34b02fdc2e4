"""Which method is named, and that none is called better without a test that showed it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from softprompt.compare import report
from softprompt.compare.report.read import comparison
from softprompt.compare.report.schema import Comparison, Contestant, PairTest, Score, Study, Trial
from softprompt.compare.report.summary import answer, notes, outcome_text
from softprompt.compare.report.verdict import verdict


def made(values, seconds, tests, references=(), higher=True, unseen=()):
    """A comparison from `{name: value}`, `{name: seconds}` and `(a, b, difference, significant)`."""
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
            bounds = (difference - 0.01, difference + 0.01)
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
    assert (result.chosen, result.equals) == ("a", ["a"]) and headline == "Take a"
    assert (
        "a is better than each of the 2 other methods: than b, the nearest, by 10.0 points (9.0 … 11.0)"
        in (sentences[0].replace("\u00a0", " "))
    )


def test_among_equals_the_cheapest_is_taken():
    found = made({"a": 0.85, "b": 0.84}, {"a": 80, "b": 12}, [("a", "b", 0.009, False)])
    result, headline, (first, second) = decided(found)
    assert result.chosen == "b" and result.best == "a" and headline == "Take b"
    assert (
        first
        == "No difference was shown between b and a: take the cheaper, b (12 s to train; the other 80 s)."
    )
    assert "a scored higher by 0.9 points" in second and "may be chance" in second
    assert "better" not in first + second


def test_one_that_is_worse_than_an_equal_of_the_best_is_not_taken():
    tests = [("a", "b", 0.01, False), ("a", "c", 0.02, False), ("b", "c", 0.01, True)]
    result, _, _ = decided(made({"a": 0.85, "b": 0.84, "c": 0.83}, {"a": 80, "b": 12, "c": 1}, tests))
    assert result.equals == ["a", "b"] and result.chosen == "b" and result.others == ["c"]


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
    _, _, sentences = decided(made({"a": 0.9, "b": 0.2}, {"a": 9, "b": 8}, []))
    text = " ".join(sentences)
    assert "better" not in text and "No test was made" in text and "no test compared the two" in text


def test_nothing_scored():
    found = made({"a": 0.9}, {}, [])
    found.scores.clear()
    assert verdict(found) is None and answer(found, None)[0] == "No answer yet"


def test_another_order_on_unseen_rows_is_noted():
    found = made({"a": 0.9, "b": 0.8}, {}, [("a", "b", 0.1, True)], unseen=[("b", "a", 0.2, True)])
    assert "On unseen rows b was shown to be better." in notes(found, verdict(found))


@pytest.mark.parametrize(("first", "words"), [("a", "between a and b"), ("b", "between b and a")])
def test_a_test_without_a_difference_says_how_many_rows_could_show_one(first, words):
    found = made({"a": 0.85, "b": 0.84}, {}, [("a", "b", 0.009, False)])
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
