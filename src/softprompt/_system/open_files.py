"""The number of files that the process may hold open is raised where it needs more.

Many systems allow 256 or 1,024 by default, and far more to a process that asks. A thousand prompts that are
trained side by side hold two files each: a lock and a journal.
"""

from __future__ import annotations

import contextlib

from ..errors import SoftPromptError

SPARE = 256  # for all else: libraries, mapped weights, caches


def allow(files: int) -> None:
    """Raise the limit on open files, where it is lower than so many and some to spare.

    Raises SoftPromptError where the system does not allow as many.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + SPARE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft < wanted:
        raise SoftPromptError(
            f"this run needs {wanted:,} open files, and the system allows {soft:,}",
            why="each prompt that is trained holds two files open, a lock and a journal",
            fix=f"ulimit -n {wanted} (as an administrator where it is refused), or train fewer prompts a run",
        )
