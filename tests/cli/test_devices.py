"""`tune` in several processes: one message where one of them fails, and no process waits for ever."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.together import together

import softprompt
from softprompt.cli import main, output
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
    shown = (tmp_path / "0.err").read_text()
    assert "2 processes train together" in shown and "step 4/4" in shown
    assert (tmp_path / "1.out").read_text() == "" and "step" not in (tmp_path / "1.err").read_text()


def test_a_process_that_fails_ends_the_others(recipe, tmp_path, monkeypatch):
    def run(rank: int) -> int:
        if rank == 1:
            monkeypatch.setattr(prepare, "make_plan", fail)
        return main(["tune", str(recipe)])

    def fail(*arguments: object, **options: object) -> None:
        raise SoftPromptError("only one of two", "it is a test")

    assert together(run, tmp_path) == [1, 1]
    assert "only one of two" in message(tmp_path)


def test_a_killed_process_ends_the_others(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "verbose", lambda: False)  # the cause is shown under `-v` only

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


PAGE = Path(__file__).parents[2] / "docs" / "many-devices.md"


def test_the_pages_snippet_runs(recipe, tmp_path):
    command = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[0]
    assert command.startswith("torchrun --nproc-per-node 2 ")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        ["bash", "-ec", command], cwd=recipe.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dev rows:") == 1 and (tmp_path / "out" / "softprompt.json").exists()


@pytest.mark.parametrize(
    ("script", "code", "error"),
    [
        ('echo "$RANK of $WORLD_SIZE: $*"', 0, ""),
        ('[ "$RANK" = 0 ] || exit 1; sleep 60', 1, ""),  # it has printed its error
        ('[ "$RANK" = 0 ] || kill -KILL $$; sleep 60', 1, "process 1 was killed (SIGKILL)"),
    ],
)
def test_devices_starts_the_processes(recipe, tmp_path, monkeypatch, capfd, script, code, error):
    """A stand-in for Python shows how it is called, or ends as a failing process does."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/bash\n{script}\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main(["tune", str(recipe), "devices=2", "--json"]) == code
    out, err = capfd.readouterr()
    if not code:
        expected = {f"{rank} of 2: -m softprompt tune {recipe} devices=2 --json" for rank in range(2)}
        assert set(out.splitlines()) == expected
    assert error in out and "Traceback" not in err


def test_more_devices_than_gpus(run, recipe, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    message = run("tune", recipe, "devices=3", "--json")
    assert message.code == 1
    assert message.json["error"]["what"] == "train.devices=3, but there are 2 GPUs"


def test_python_starts_no_processes(model_folder, tmp_path):
    rows = [{"input": f"{i}", "target": "b"} for i in range(8)]
    with pytest.raises(SoftPromptError, match="devices=2, but this is 1 process"):
        softprompt.tune(str(model_folder), "prompt-tuning", rows, output=tmp_path / "out", devices=2)
    with pytest.raises(SoftPromptError, match="this run has one process"):
        softprompt.tune(str(model_folder), "prompt-tuning", rows, output=tmp_path / "out", shard=True)
    assert not (tmp_path / "out").exists()
