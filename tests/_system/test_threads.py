"""One thread is used for each physical core, within the container's time, unless the user sets a number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from softprompt._system import cgroup, threads


@pytest.fixture
def tree(tmp_path):
    """Return a function that makes a fake root with these files: `tree({path: text})`."""

    def make(files: dict[str, str]) -> Path:
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return make


def topology(cores: dict[int, tuple[int, int]]) -> dict[str, str]:
    """Return the files of logical processors: (package, core) by number."""
    files = {}
    for number, (package, core) in cores.items():
        folder = f"sys/devices/system/cpu/cpu{number}/topology"
        files |= {f"{folder}/physical_package_id": f"{package}\n", f"{folder}/core_id": f"{core}\n"}
    return files


TWO_SOCKETS = {n: (n // 4 % 2, n % 4) for n in range(16)}  # 2 packages of 4 cores, 2 threads each


@pytest.mark.parametrize(
    ("allowed", "cores"), [(range(16), 8), (range(8), 8), ([0, 8], 1), ([0, 4], 2), ([3], 1), ([40, 41], 2)]
)
def test_physical_cores(tree, allowed, cores):
    assert threads.physical_cores(set(allowed), tree(topology(TWO_SOCKETS))) == cores


CGROUPS = {
    "no file": ({}, None),
    "v2": ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
    "v2 no limit": ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, None),
    "v2 limit above": (
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
        },
        2.0,
    ),
    "v2 seen from inside": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4.0),
    "v1": (
        {
            "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/docker/x\n0::/\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
        },
        3.0,
    ),
    "v1 named by the host, seen from inside": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        0.5,
    ),
    "v1 no limit": (
        {
            "proc/self/cgroup": "4:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        None,
    ),
}


@pytest.mark.parametrize(("files", "quota"), CGROUPS.values(), ids=CGROUPS)
def test_quota(tree, files, quota):
    assert cgroup.cpu_quota(tree(files)) == quota


@pytest.mark.parametrize(
    ("quota", "count"), [("100000", 1), ("250000", 3), ("10000", 1), ("6400000", 8), ("max", 8)]
)
def test_right_number(tree, monkeypatch, quota, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"}
    assert threads.right_number(tree(files | topology(TWO_SOCKETS))) == count


@pytest.fixture
def torch_threads(monkeypatch):
    """torch's number of threads, as a list of what it was set to."""
    counts = [64]
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "right_number", lambda: 4)
    return counts


def test_the_right_number_is_used_and_the_users_own_wins(torch_threads, monkeypatch):
    assert threads.use() == 4
    assert threads.use(7) == 7  # train.threads
    torch_threads.append(2)  # torch.set_num_threads, by the user
    assert threads.use() == 2
    torch_threads.append(64)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert threads.use() == 64


MEMORY = {
    "v2": (
        {
            "proc/self/cgroup": "0::/a\n",
            "sys/fs/cgroup/a/memory.max": "1000\n",
            "sys/fs/cgroup/a/memory.current": "700\n",
            "sys/fs/cgroup/a/memory.stat": "anon 500\ninactive_file 150\n",
        },
        450,
    ),
    "v1": (
        {
            "proc/self/cgroup": "5:memory:/m\n",
            "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/m/memory.usage_in_bytes": "700\n",
            "sys/fs/cgroup/memory/m/memory.stat": "inactive_file 1\ntotal_inactive_file 100\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5000\n",
        },
        400,
    ),
    "no limit": (
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "max\n",
            "sys/fs/cgroup/memory.current": "7\n",
        },
        None,
    ),
    "none": ({}, None),
}


@pytest.mark.parametrize(("files", "left"), MEMORY.values(), ids=MEMORY)
def test_memory_left_of_a_container(tree, files, left):
    assert cgroup.memory_left(tree(files)) == left


def test_free_memory_is_bounded_by_the_container(monkeypatch):
    from softprompt._system.memory import free_memory

    free = free_memory()
    monkeypatch.setattr(cgroup, "memory_left", lambda: 1234)
    assert free > 1234 == free_memory()
