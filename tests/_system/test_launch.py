"""Processes join each other, also again after a run that ended with an exception."""

from __future__ import annotations

import signal
import threading
import time
from datetime import timedelta

import pytest
from tests.together import free_port, together
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from softprompt._system import launch
from softprompt._system.launch import joined

pytestmark = pytest.mark.process


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("has_agent", [False, True])
def test_a_run_after_one_that_was_interrupted(tmp_path, monkeypatch, late, has_agent):
    """A process may be in its next run before another one has left the last; torchrun may hold the store."""
    close, port = launch._end, free_port()
    if has_agent:
        agent = TCPStore("localhost", port, None, True, timedelta(seconds=30), False)
        assert agent.port == port
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")

    def close_late() -> None:
        time.sleep(0.5)
        close()

    def run(rank: int) -> None:
        if rank == late:
            monkeypatch.setattr(launch, "_end", close_late)
        for number in range(2):
            with pytest.raises(KeyboardInterrupt), joined() as world:
                assert world.joined({rank: number}) == {0: number, 1: number}
                raise KeyboardInterrupt
        with joined() as world:
            assert world.joined({rank: 2}) == {0: 2, 1: 2}

    assert together(run, tmp_path, port=port) == [0, 0], "".join(
        (tmp_path / f"{rank}.err").read_text() for rank in range(2)
    )


def test_processes_that_hang_are_killed_and_say_where(tmp_path):
    def run(rank: int) -> None:
        if rank == 0:
            wait_for_ever()

    def wait_for_ever() -> None:
        threading.Event().wait()

    assert together(run, tmp_path, quiet=0.5) == [-signal.SIGKILL, 0]
    assert "in wait_for_ever" in (tmp_path / "0.err").read_text()
