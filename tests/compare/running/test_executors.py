"""Every executor gives the same results; a process that dies loses its own job only."""

from __future__ import annotations

import os

import pytest

from softprompt.compare.running.executors import Local, Lost, Serial
from softprompt.errors import SoftPromptError


def work(job: int) -> tuple[int, str]:
    if job == 13:
        raise SoftPromptError("thirteen", "it is unlucky", "another number")
    if job == 99:
        os._exit(3)
    return job * job, os.environ.get("OMP_NUM_THREADS", "")


def test_in_this_process():
    results = dict(Serial().run(work, [2, 13, 4]))
    assert results[0][0] == 4 and results[2][0] == 16
    assert isinstance(results[1], SoftPromptError)


@pytest.mark.process
def test_in_processes_with_their_threads():
    runner = Local(workers=2, threads=3)
    try:
        results = dict(runner.run(work, [2, 13, 99, 4, 5]))
        again = dict(runner.run(work, [6]))
    finally:
        runner.close()
    assert [results[i] for i in (0, 3, 4)] == [(4, "3"), (16, "3"), (25, "3")]
    assert (results[1].what, results[1].why, results[1].fix) == (
        "thirteen",
        "it is unlucky",
        "another number",
    )
    assert isinstance(results[2], Lost) and again == {0: (36, "3")}


@pytest.mark.process
def test_on_a_ray_cluster():
    pytest.importorskip("ray")
    from softprompt.compare.running.executors import Ray

    runner = Ray(threads=1, workers=2)
    try:
        results = dict(runner.run(work, [2, 13, 99, 4]))
    finally:
        runner.close()
    assert results[0] == (4, "1") and results[3] == (16, "1")
    assert isinstance(results[1], SoftPromptError) and results[1].fix == "another number"
    assert isinstance(results[2], Lost)
