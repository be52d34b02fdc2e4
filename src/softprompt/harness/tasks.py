"""Tasks of the harness by name, and the errors for those that cannot be loaded."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager

from ..errors import SoftPromptError


def manager_for(names: list[str], include_path: str | None) -> tuple[TaskManager, list[str]]:
    """Return (the manager that knows all of these tasks, their names with patterns resolved).

    `include_path` is a folder of task files. The harness's own tasks are read only where a name is not in it,
    since there are thousands of them. Raises SoftPromptError for an unknown name, with the nearest ones.
    """
    if include_path is not None and not Path(include_path).expanduser().is_dir():
        raise SoftPromptError(
            f"there is no folder {include_path}",
            why="--include-path names a folder of task files (YAML)",
            fix="give an existing folder, or leave it out for the harness's own tasks",
        )
    manager, missing = None, names
    if include_path is not None:
        include_path = str(Path(include_path).expanduser().absolute())
        manager = TaskManager(include_path=include_path, include_defaults=False)
        missing = _missing(manager, names)
    if missing:
        manager = TaskManager(include_path=include_path)
        missing = _missing(manager, names)
    assert manager is not None
    if missing:
        near = difflib.get_close_matches(missing[0], manager.all_tasks, n=5, cutoff=0.5)
        where = f" and in {include_path}" if include_path else ""
        raise SoftPromptError(
            f"unknown task '{missing[0]}'" + (f"; did you mean {', '.join(near)}?" if near else ""),
            why=f"it is not among the {len(manager.all_tasks)} tasks of lm-evaluation-harness{where}",
            fix="`lm-eval ls tasks` lists them; --include-path DIR adds a folder of your own",
        )
    return manager, list(dict.fromkeys(task for name in names for task in manager.match_tasks([name])))


def loaded(manager: TaskManager, names: list[str]) -> list[Any]:
    """Load tasks with their rows. Raises SoftPromptError where they cannot be read."""
    objects: list[Any] = []
    for name in names:
        try:
            result = manager.load([name])
        except Exception as error:  # of datasets, the hub, or the task's own code
            raise SoftPromptError(
                f"the task '{name}' cannot be loaded",
                why=(str(error).strip() or type(error).__name__).splitlines()[0],
                fix="its rows may come from a hub: check the connection, or give a task of your own whose "
                "dataset_path is json (docs/harness.md)",
            ) from error
        objects += list(result["groups"].values()) or list(result["tasks"].values())
    return objects


def _missing(manager: TaskManager, names: list[str]) -> list[str]:
    return [name for name in names if not manager.match_tasks([name])]
