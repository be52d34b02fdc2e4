"""The demo is reduced to fit its time; the paces are invented here."""

from __future__ import annotations

from itertools import pairwise

import pytest

from softprompt_demo import run
from softprompt_demo.corpus import DemoData
from softprompt_demo.plan import SECONDS, Paces, Size, fit, ladder, seconds
from softprompt_demo.state import Demo, balanced

FULL = Size(80, 344, 48, 120, 120, 48)
PARTS = [0, 3, None, None, None]


def paces(slow: float) -> Paces:
    return Paces(48, 0.05 * slow, 0.1 * slow, 0.12 * slow, 0.3 * slow, 0.4 * slow)


def test_the_ladder_only_goes_down():
    sizes = ladder(FULL)
    assert sizes[0] == FULL
    for larger, smaller in pairwise(sizes):
        assert seconds(PARTS, smaller, paces(1)) < seconds(PARTS, larger, paces(1))
        assert smaller.answered <= smaller.test
    assert ladder(Size(2, 12, 4, 8, 8, 5))[-1] == Size(1, 4, 2, 4, 4, 4)


def test_a_fast_machine_has_the_whole_demo():
    assert fit(ladder(FULL), PARTS, paces(1), SECONDS) == FULL
    assert FULL.changes(FULL) == []


@pytest.mark.parametrize("slow", [2, 4, 8, 16])
def test_a_slow_machine_has_less_and_ends_in_time(slow):
    size = fit(ladder(FULL), PARTS, paces(slow), SECONDS)
    assert size != FULL and seconds(PARTS, size, paces(slow)) <= SECONDS
    assert any("answers in text" in change for change in size.changes(FULL))


def test_every_beginning_of_the_rows_has_its_share_of_each_prompt():
    rows = [{"prompt": "many", "n": str(i)} for i in range(12)] + [{"prompt": "few"} for _ in range(4)]
    order = balanced(rows)
    assert sorted(map(str, order)) == sorted(map(str, rows))
    for count in (4, 8, 12):
        assert sum(row["prompt"] == "few" for row in order[:count]) == count // 4


class Machine(Demo):
    """A demo whose clock moves by the time that the parts take."""

    now = 0.0

    def spent(self) -> float:
        return self.now


@pytest.mark.parametrize("busier", [1.0, 1.5, 3.0])
def test_a_machine_that_becomes_busy_has_less_of_what_is_to_come(busier, monkeypatch, tmp_path, capsys):
    data = DemoData([{}] * 344, [{}] * 48, [{"prompt": "old"}] * 120)
    demo = Machine(None, data, tmp_path, 0.0, FULL)
    demo.paces, demo.now = paces(1.4), 30.0

    def work(part: int | None) -> run.TableRow:
        demo.now += busier * seconds([part], demo.size, paces(1.4))
        return run.TableRow("", [], 0, 0, 0, 0.0, 0)

    monkeypatch.setattr(run, "_tuned_line", lambda demo, name, until: work(None))
    monkeypatch.setattr(run, "_reference_line", lambda demo, name, shots, until: work(shots))
    assert len(run._lines(demo)) == 5
    assert demo.now <= 720
    assert ("to end in ten minutes" in capsys.readouterr().err) == (busier > 1)


def test_answers_stop_when_the_time_is_over():
    demo = Machine(None, DemoData([], [], [{"prompt": "old"}] * 60), None, 0.0, FULL)  # type: ignore[arg-type]

    class Evaluator:
        """An evaluator for which each row takes a second."""

        def run(self, method, part, text_rows=None):
            demo.now += len(part)
            return type("Evaluation", (), {"records": list(part)})()

    import dataclasses

    made = dataclasses.make_dataclass("Made", ["metrics", "max_new_tokens"], bases=(Evaluator,), frozen=True)
    rows = list(range(60))
    demo.size = dataclasses.replace(FULL, test=60, answered=60)
    records, answered = run.answers(demo, made((), 8), None, rows, until=40.0)  # type: ignore[arg-type]
    assert records == rows[: len(records)]
    # a dozen are begun while there is time for those and for scoring the others
    assert 0 < answered < 60 and demo.now <= 40 + run.ANSWERED_AT_ONCE + run.SCORED_AT_ONCE
