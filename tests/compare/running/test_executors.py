"""Every executor gives the same results; a process that dies loses its own job only."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time

import psutil
import pytest

from softprompt.compare.experiment import compare
from softprompt.compare.report.read import comparison
from softprompt.compare.running.executors import Local, Lost, Serial
from softprompt.config.load import recipe_from_dict
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


def _kill_one(parent: int, killed: list[int]) -> None:
    """Kill the first worker of the cluster that runs a job."""
    while not killed:
        for process in psutil.Process(parent).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended
                if process.cmdline()[:1] == ["ray::run"]:
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.02)


@pytest.mark.process
def test_on_a_ray_cluster(model_folder, tmp_path):
    """A comparison on a local cluster of two workers, of which one is killed: its trials run again."""
    pytest.importorskip("ray")
    from softprompt.compare.running.executors import Ray

    lines = [json.dumps({"input": f"row {i}", "target": ("good", "bad")[i % 2]}) for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    recipe = recipe_from_dict(
        {
            "model": str(model_folder),
            "data": {"train": str(tmp_path / "rows.jsonl")},
            "task": {"kind": "classification", "labels": ["good", "bad"]},
            "train": {"steps": 4, "batch_size": 4, "dtype": "float32"},
            "compare": {"methods": ["prompt-tuning/after", "zero-shot"], "rates": [1e-2], "seeds": 1}
            | {"control": False, "serving": False, "prune": False},
        }
    )
    ray_runner = Ray(threads=1, workers=2)
    killed: list[int] = []
    threading.Thread(target=_kill_one, args=(os.getpid(), killed), daemon=True).start()
    try:
        done = compare(recipe, tmp_path / "ray", on=ray_runner, report=False)
        results = dict(ray_runner.run(work, [2, 13, 99, 4]))
    finally:
        ray_runner.close()
    assert len(killed) == 1 and done.failed == 0
    alone = compare(recipe, tmp_path / "alone", on=Serial(), report=False)
    records = [
        {(t.phase, t.id): (t.status, t.dev) for t in comparison(each.folder).trials} for each in (done, alone)
    ]
    assert records[0] == records[1] and len(records[0]) >= 3
    assert results[0] == (4, "1") and results[3] == (16, "1")
    assert isinstance(results[1], SoftPromptError) and results[1].fix == "another number"
    assert isinstance(results[2], Lost)
