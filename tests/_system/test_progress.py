"""Progress of long work is reported and shown, tested with a fake clock."""

from __future__ import annotations

import io
import sys

import pytest

import softprompt
from softprompt._system import progress
from softprompt._system.display import Display, is_watched, left_of, shown
from softprompt._system.progress import TimeLeft, duration, task, track
from softprompt.evaluation.records import DevScore
from softprompt.training.learner import Optimization
from softprompt.training.loop import Event, Remaining
from softprompt.training.reporting import few_dev_rows, following_steps


class Hands:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Quiet:
    """A learner as far as a clock looks at it."""

    stopped = None

    def __init__(self, steps: int, step: int, eval_every: int) -> None:
        self.optimization = Optimization(steps, 1e-2, eval_every=eval_every)
        self.state = type("State", (), {"step": step})()


def test_time_left_leaves_out_the_first_part_which_warms_up():
    clock = Hands()
    pace = TimeLeft(clock)
    clock.now = 60.0  # ten times as long as the others
    pace.at(0.1)
    assert pace.left() is None
    clock.now = 66.0
    pace.at(0.2)
    assert pace.left() == pytest.approx(8 * 6)
    clock.now = 69.0
    assert pace.left() == pytest.approx(45)


def test_steps_and_evaluations_are_counted_by_their_own_pace():
    learner = Quiet(10, 1, 3)  # evaluated after 3, 6, 9 and 10
    left = Remaining([learner], evaluation_seconds=7.0)  # type: ignore[list-item]
    left.stepped(1, 50.0)
    assert left.seconds_left() == 9 * 50 + 4 * 7
    learner.state.step = 3
    left.stepped(1, 2.0)
    left.stepped(1, 4.0)
    assert left.seconds_left() == 7 * 3 + 3 * 7
    left.evaluated(5.0)
    assert left.seconds_left() == 7 * 3 + 3 * 5
    learner.state.step = 10
    assert left.seconds_left() == 0


@pytest.mark.parametrize(("steps", "between"), [(10, 3), (9, 3), (7, 1), (5, 100), (1, 1)])
def test_evaluations_to_come_are_those_of_the_loop(steps, between):
    how = Optimization(steps, 1e-2, eval_every=between)
    due = [s for s in range(1, steps + 1) if s % between == 0 or s == steps]
    for step in range(steps + 1):
        assert how.evaluations_after(step) == sum(s > step for s in due)


def test_lines_in_a_pipe_come_after_some_seconds_and_not_too_often(capsys):
    clock = Hands()
    with Display("lines", clock=clock), task("rows", 100) as own:
        for number in range(1, 61):
            clock.now = number
            own.at(number)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "  rows   6/100  1m 34s left",
        "  rows  21/100  1m 19s left",
        "  rows  36/100  1m 04s left",
        "  rows  51/100  49s left",
    ]


def test_what_does_not_move_shows_that_it_is_alive(capsys):
    clock = Hands()
    with Display("lines", clock=clock) as display, task("loading a model"):
        for clock.now in range(40):
            display.beat()
    assert capsys.readouterr().err.splitlines() == [
        "  loading a model  6.0s so far",
        "  loading a model  21s so far",
        "  loading a model  36s so far",
    ]


def test_work_that_is_late_says_what_it_took_and_not_that_nothing_is_left():
    with task("work", total=3) as work:
        work.at(2, left=0.0)
        assert left_of(work).endswith("so far")
        work.at(2, left=9.0)
        assert left_of(work).endswith(" left")


def test_short_work_is_silent(capsys):
    with Display("lines", clock=Hands()):
        list(track(range(50), "rows"))
    assert capsys.readouterr().err == ""


def test_unlike_parts_count_by_what_they_take():
    clock, seen = Hands(), []

    class Follower(Display):
        def moved(self, task):
            seen.append(task.seconds_left)

    with Follower("lines", clock=clock):
        for item in track([1, 2, 3, 4], "parts", weights=[1, 2, 3, 4]):
            clock.now += item
    assert seen == [None, pytest.approx(7), pytest.approx(4), 0]


def test_training_is_live_in_a_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    clock = Hands()
    with Display(clock=clock) as display:
        display.say("training")
        with following_steps(["one"]) as follow:
            clock.now = 2.0
            follow(Event(2, 10, 0.5, 1e-2, 80.0))
            follow(Event(3, 10, 0.5, 1e-2, 70.0, DevScore((1.0,), "accuracy", 0.75), True))
            display._live.refresh()
    shown = screen.getvalue()
    assert all(part in shown for part in ("training", "3/10", "loss 0.5", "best 0.75 at 3", "1m 10s left"))


def test_a_notebook_has_one_line(capsys):
    clock = Hands()
    with Display("line", clock=clock), task("rows", 3) as own:
        for number in (1, 2):
            clock.now = 4.0 * number
            own.at(number)
    output = capsys.readouterr().err
    assert "rows 2/3  4.0s left" in output and "\n" not in output


def test_who_looks_on(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not is_watched()
    with shown(None):
        assert progress.follower() is None
    with shown(True):
        assert isinstance(progress.follower(), Display)
        with shown(False):
            assert progress.follower() is None
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert is_watched()
    with shown(None) as display:
        assert progress.follower() is display
        with shown(None):  # a call inside a call has one display
            assert progress.follower() is display
    with shown(False):
        assert progress.follower() is None


@pytest.mark.parametrize("progress", [True, None, False])
def test_python_is_silent_in_a_pipe_unless_asked(progress, model_folder, tmp_path, capsys):
    rows = [{"input": f"row {i}", "target": "ab"[i % 2]} for i in range(8)]
    how = {"task": "classification", "steps": 2, "dtype": "float32", "output": tmp_path / "out"}
    tuned = softprompt.tune(str(model_folder), "prompt-tuning", rows, progress=progress, **how)
    output = capsys.readouterr().err
    assert ("training" in output) == (progress is True) and tuned.metrics


def test_durations():
    output = [duration(seconds) for seconds in (0.04, 9.94, 59.4, 61, 3599, 3700)]
    assert output == ["0.0s", "9.9s", "59s", "1m 01s", "59m 59s", "1h 01m"]


def test_a_dev_set_that_tells_nothing_is_said():
    assert few_dev_rows(20) == ""
    # a share of one half, measured on six rows: 1.96 standard errors of sqrt(0.25 / 6)
    assert "6 dev rows" in few_dev_rows(6) and f"{round(196 * (0.25 / 6) ** 0.5)} points" in few_dev_rows(6)
    assert "data.dev_fraction" in few_dev_rows(6)
    assert "1 dev row tells little: scores measured on it" in few_dev_rows(1)
