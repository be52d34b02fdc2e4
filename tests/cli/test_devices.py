"""`tune` in several processes: one message where one of them fails, and no process waits for ever."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from tests.together import together

from softprompt.cli import main
from softprompt.errors import SoftPromptError
from softprompt.training import prepare, step

pytestmark = pytest.mark.process


def message(folder: Path) -> str:
    """The only error of the two processes."""
    texts = [(folder / f"{rank}.err").read_text() for rank in range(2)]
    assert sum(text.count("error: ") for text in texts) == 1, texts
    assert "Traceback" not in "".join(texts), texts
    return next(text for text in texts if "error: " in text)


def test_the_first_process_prints_and_writes(recipe, tmp_path):
    assert together(lambda rank: main(["tune", str(recipe), "--json"]), tmp_path) == [0, 0]
    assert re.fullmatch(r'\{"artifact": .*\}\n', (tmp_path / "0.out").read_text())
    assert "step 4/4" in (tmp_path / "0.err").read_text()
    assert (tmp_path / "1.out").read_text() == "" and "step" not in (tmp_path / "1.err").read_text()


def test_a_process_that_fails_ends_the_others(recipe, tmp_path, monkeypatch):
    def run(rank: int) -> int:
        if rank == 1:
            monkeypatch.setattr(prepare, "make_plan", fail)
        return main(["tune", str(recipe)])

    def fail(*arguments: object) -> None:
        raise SoftPromptError("only one of two", "it is a test")

    assert together(run, tmp_path) == [1, 1]
    assert "only one of two" in message(tmp_path)


def test_a_killed_process_ends_the_others(recipe, tmp_path, monkeypatch):
    def run(rank: int) -> int:
        if rank == 1:
            monkeypatch.setattr(step.TrainStep, "backward", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        return main(["tune", str(recipe)])

    assert together(run, tmp_path) == [1, -signal.SIGKILL]
    assert "a process of this run ended before the others" in message(tmp_path)


def test_a_mistake_that_all_see_is_shown_once(recipe, tmp_path):
    assert together(lambda rank: main(["tune", str(recipe), "stepz=3"]), tmp_path) == [1, 1]
    assert "stepz" in message(tmp_path)


def test_processes_that_would_train_something_else(recipe, tmp_path):
    assert together(lambda rank: main(["tune", str(recipe), f"seed={rank}"]), tmp_path) == [1, 1]
    assert "the seed (train.seed): was 0, is 1" in message(tmp_path)


def test_another_number_of_devices_than_processes(recipe, tmp_path):
    assert together(lambda rank: main(["tune", str(recipe), "devices=3"]), tmp_path) == [1, 1]
    assert "train.devices=3, but torchrun started 2 processes" in message(tmp_path)
