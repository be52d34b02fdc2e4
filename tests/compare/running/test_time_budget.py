"""The time that each phase of a comparison gets, with a clock that is moved by hand."""

from __future__ import annotations

import math

import pytest

from softprompt.compare.running.time_budget import Allowance, final_seconds, score_seconds


class Hands:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def allowance(within, used=0.0, workers=1):
    return Allowance(within, used, workers, Hands())


def test_without_a_limit_nothing_ends():
    free = allowance(None)
    assert free.left() == math.inf and free.until(10) is None and free.shared(3) == [None] * 3
    assert free.rounds({"a": 1e9}, 1e9, 3) == [["a"]] * 3 and not free.left_out


def test_time_of_earlier_calls_and_of_the_report_is_taken_off():
    assert allowance(600, used=100).left() == 600 - 100 - 20
    assert allowance(60).left() == pytest.approx(54)  # a tenth for the report
    assert allowance(600).until(30) == 1000 + 550


@pytest.mark.parametrize(("workers", "ends"), [(1, [100, 200, 300, 400]), (2, [200, 200, 400, 400])])
def test_jobs_share_what_is_left_but_for_what_is_reserved(workers, ends):
    own = allowance(620, workers=workers)
    assert own.shared(4, reserved=200) == [1000 + end for end in ends]


def test_seeds_go_before_methods_and_the_dearest_method_first():
    own = allowance(320)  # 300 to spend
    assert own.rounds({"a": 40, "b": 50}, 10, 3) == [["a", "b"]] * 2
    assert own.left_out == ["1 of 3 seeds"]
    own = allowance(320)
    assert own.rounds({"a": 40, "b": 900}, 10, 3) == [["a"]] * 3
    assert own.left_out == ["b: its final training"]
    own = allowance(320)
    assert own.rounds({"a": 500, "b": 900}, 10, 3) == [] and len(own.left_out) == 2


def test_the_seconds_of_a_final_are_estimated_from_the_search():
    records = [{"seconds": 10.0, "steps": 20}, {"seconds": 30.0, "steps": 40}, {"steps": None}]
    assert final_seconds(records, 100) == pytest.approx(1.3 * 100 * 0.75)
    assert final_seconds([], 100) == 0
    able = {"status": "done", "contestant": "zero-shot", "seconds": 5.0}
    words = {"status": "done", "contestant": "tf-idf", "seconds": 0.1}
    assert score_seconds([able, words], 10, 40) == pytest.approx(20)
