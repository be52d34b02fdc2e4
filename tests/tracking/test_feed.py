"""A tracker that fails, hangs or prints never harms the run."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from softprompt._system import notes
from softprompt.config.sections.track import TrackConfig, TrackerConfig
from softprompt.errors import SoftPromptError
from softprompt.tracking import feed as feeds
from softprompt.tracking.base import Subject, Tracker
from softprompt.tracking.feed import Feed
from softprompt.tracking.journal import FILE, read
from softprompt.tracking.registry import check
from softprompt.tracking.session import Session
from softprompt.tracking.values import HIDDEN, flat

FULL = OSError("https://me:secret@host is full")


class Fake(Tracker):
    """Keeps what it receives; `fault` is raised at the step `fails_at`, or at the start for 0."""

    package = module = "json"

    def __init__(self, fails_at=None, fault=FULL):
        super().__init__(TrackerConfig(), Subject(Path("x"), "x", {}, ""))
        self.fails_at, self.fault, self.steps, self.ended = fails_at, fault, [], None

    def start(self, id):
        print("a line on stdout")
        self.log({}, 0)
        return "id"

    def log(self, values, step):
        if step == self.fails_at:
            raise self.fault
        self.steps.append(step)

    def end(self, scores, facts, step, status):
        self.ended = status


@pytest.fixture(autouse=True)
def fresh_notes(monkeypatch):
    monkeypatch.setattr(notes, "_shown", set())


def test_values_come_in_order_and_nothing_reaches_stdout(capsys):
    tracker = Fake()
    feed = Feed("fake", tracker)
    assert feed.start(None) == "id"
    for step in range(1, 100):
        feed.log({}, step)
    feed.end({}, {}, 99, "finished")
    assert tracker.steps == list(range(100)) and tracker.ended == "finished"
    assert capsys.readouterr().out == ""


def test_a_tracker_that_cannot_start_is_an_error_without_its_password():
    with pytest.raises(SoftPromptError, match="fake does not start") as error:
        Feed("fake", Fake(fails_at=0)).start(None)
    assert "host is full" in error.value.why and "secret" not in str(error.value)


@pytest.mark.parametrize("fault", [OSError("no network"), SystemExit(1)])
def test_a_tracker_that_fails_is_noted_once_and_gets_no_more(fault, caplog):
    tracker = Fake(fails_at=2, fault=fault)
    feed = Feed("fake", tracker)
    feed.start(None)
    for step in range(1, 4):
        feed.log({}, step)
    feed._thread.join()
    for step in range(4, 9):
        feed.log({}, step)
    feed.end({}, {}, 8, "finished")
    assert tracker.steps == [0, 1] and tracker.ended is None
    assert caplog.text.count("the tracker fake failed") == 1


def test_a_tracker_that_hangs_is_waited_for_a_limited_time(monkeypatch, caplog):
    monkeypatch.setattr(feeds, "START_SECONDS", 0.1)
    monkeypatch.setattr(feeds, "END_SECONDS", 0.1)
    release = threading.Event()

    class Hanging(Fake):
        def log(self, values, step):
            release.wait(20)

    with pytest.raises(SoftPromptError) as error:
        Feed("fake", Hanging()).start(None)
    assert "no answer" in error.value.why
    feed = Feed("fake", Fake())
    feed.start(None)
    feed._tracker.log = lambda values, step: release.wait(20)
    feed.log({}, 1)
    feed.end({}, {}, 1, "finished")
    assert "did not end" in caplog.text
    release.set()


def test_a_run_whose_tracker_failed_has_a_new_one_when_it_is_resumed(tmp_path, monkeypatch):
    made = []

    def make():
        made.append(Fake(fails_at=None if made else 2))
        return made[-1]

    monkeypatch.setattr("softprompt.tracking.session.makers", lambda *given: {"fake": make})
    subject = Subject(tmp_path, "x", {}, "")

    def part(after: int, until: int) -> Session:
        session = Session(subject, TrackConfig(), "run", anew=False)
        session.begin({}, after)
        for step in range(after + 1, until + 1):
            session.step({"step": step, "loss": 0.0})
            if made[-1].fails_at is not None and step >= 2:
                session._feeds[0]._thread.join()
        session.stop("interrupted")
        return session

    part(0, 4)
    part(3, 5)
    assert made[0].steps == [0, 1] and made[-1].steps == [0, 1, 2, 3, 4, 5]
    assert [line["step"] for line in read(tmp_path / FILE) if line["kind"] == "step"] == [1, 2, 3, 4, 5]


def test_a_damaged_last_line_is_left_out(tmp_path):
    (tmp_path / FILE).write_text('{"kind": "run", "id": "r"}\n{"kind": "step", "step": 1}\n{"kind": "st')
    session = Session(Subject(tmp_path, "x", {}, ""), TrackConfig(), "r", anew=False)
    session.begin({}, 1)
    session.step({"step": 2})
    session.stop("interrupted")
    assert [line.get("step") for line in read(tmp_path / FILE)] == [None, 1, 2]


def test_a_journal_that_cannot_be_written_does_not_end_the_run(tmp_path, caplog):
    (tmp_path / FILE).mkdir()
    session = Session(Subject(tmp_path, "x", {}, ""), TrackConfig(), "r", anew=False)
    session.begin({}, 0)
    session.step({"step": 1})
    session.stop("interrupted")
    assert caplog.text.count("cannot be written") == 1


def test_a_missing_library_names_the_command_that_installs_it():
    with pytest.raises(SoftPromptError, match="comet_ml needs the package comet-ml") as error:
        check(TrackConfig.model_validate("comet_ml"))
    assert error.value.fix == "pip install 'comet-ml'"


def test_trackio_takes_no_folder():
    with pytest.raises(SoftPromptError, match=r"track\.trackio\.dir") as error:
        check(TrackConfig.model_validate({"trackio": {"dir": "runs"}}))
    assert "TRACKIO_DIR" in error.value.why


def test_an_object_that_is_no_tracker_is_refused():
    with pytest.raises(SoftPromptError, match="type object, which is no tracker"):
        check(TrackConfig(), [object()])


def test_parameters_are_flat_and_hold_no_secrets():
    values = {
        "model": "https://me:secret@host/model?api_key=secret&v=1",
        "data": {"train": "rows.jsonl", "limit": None, "max_input_tokens": 66},
        "hub": {"api_key": "secret", "token": "secret", "wandb_password": "secret"},
        "task": {"labels": ["good", "bad"]},
    }
    assert flat(values) == {
        "model": f"https://host/model?api_key={HIDDEN}&v=1",
        "data.train": "rows.jsonl",
        "data.max_input_tokens": 66,
        "hub.api_key": HIDDEN,
        "hub.token": HIDDEN,
        "hub.wandb_password": HIDDEN,
        "task.labels": '["good", "bad"]',
    }
