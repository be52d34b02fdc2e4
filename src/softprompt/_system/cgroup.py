"""The limits of a container are read from the control groups that this process runs in.

Inside a container too, the machine shows its own numbers of processors and bytes. Both layouts are read,
version 2 (one tree) and version 1 (a tree for each resource); a limit above also applies below.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many processors' worth of time the process may use; None without a limit."""
    limits = []
    for folder in _folders("cpu", root):
        words = _words(folder / "cpu.max")  # version 2: "200000 100000", or "max 100000"
        if not words:
            quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
            words = [*quota, *period]
        if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:  # no limit is "max", or "-1"
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Return the bytes below the limit; None without one. File pages that can be dropped count as free."""
    limits = []
    for folder in _folders("memory", root):
        limit = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
        # version 1 writes "no limit" as a number near 2**63
        if limit and used and limit[0].isdigit() and int(limit[0]) < 2**60:
            limits.append(max(0, int(limit[0]) - int(used[0]) + _droppable(folder)))
    return min(limits, default=None)


def _droppable(folder: Path) -> int:
    rows = [row.split() for row in _text(folder / "memory.stat").splitlines()]
    stated = {row[0]: int(row[1]) for row in rows if len(row) == 2}
    return stated.get("total_inactive_file", stated.get("inactive_file", 0))


def _folders(resource: str, root: Path) -> Iterator[Path]:
    """Yield the group's folder and those above it; a container often sees only the topmost."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, resources, name = line.split(":", 2)
        if number == "0" and not resources:
            tree = root / "sys/fs/cgroup"
        elif resource in resources.split(","):
            tree = next(
                (path for r in (resources, resource) if (path := root / "sys/fs/cgroup" / r).is_dir()),
                root / "sys/fs/cgroup" / resource,
            )
        else:
            continue
        group = tree / name.lstrip("/")
        yield group
        while group != tree and tree in group.parents:
            group = group.parent
            yield group


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
