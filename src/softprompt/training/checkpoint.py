"""The state of a run on disk, from which it is resumed.

    checkpoint/checkpoint.safetensors   the newest      checkpoint/previous.safetensors   the one before it
    checkpoint/on_policy-STEP.safetensors   the student's answers from a step on (see `on_policy`)

Each file is replaced atomically: a kill at any moment leaves the old one or the new one, never half of one.
Where the newest is damaged, a run resumes from the one before it: it takes the same steps again, to the same
bytes. The content of a file is in `checkpoint_file.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ..config.identity import Identity, differences, other_run
from ..errors import SoftPromptError
from .checkpoint_file import Saved, TrainingCounts, read, write

FILE, PREVIOUS = "checkpoint.safetensors", "previous.safetensors"


@final
class Checkpoints:
    """Reads and writes the checkpoints of one run. `identity` names the run's recipe, rows and base."""

    def __init__(
        self, folder: Path, identity: Identity, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.folder, self._identity, self._say = folder, identity, say

    def saved(self) -> Iterator[Saved]:
        """Yield the good checkpoints, the newest first.

        Raises SoftPromptError where one belongs to another run, and where there are only damaged ones.
        """
        problem, good = None, 0
        for name in (FILE, PREVIOUS):
            path = self.folder / name
            _refuse_folder(path)
            if not _is_there(path):
                continue
            try:
                saved, identity = read(path)
            except SoftPromptError as error:
                problem = problem or error
                continue
            if different := differences(identity, self._identity):
                raise other_run(self.folder.parent, different)
            if problem is not None and not good:
                self._say(f"{problem.what} ({problem.why}): resuming from the one before it")
            good += 1
            yield saved
        if problem is not None and not good:
            raise problem

    def begin_with(self, chosen: Saved | None) -> None:
        """Resume from `chosen`, which becomes the newest: later and damaged checkpoints are removed."""
        if chosen is None:
            drop(self.folder)
        elif chosen.path.name == PREVIOUS:
            chosen.path.replace(self.folder / FILE)

    def write(
        self,
        parameters: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        progress: TrainingCounts,
        best: Mapping[str, Tensor],
        average: Mapping[str, Tensor],
    ) -> None:
        """Write a new checkpoint; the newest becomes the one before it."""
        newest, keep = self.folder / FILE, self.folder / PREVIOUS
        write(newest, self._identity, parameters, optimizer, progress, best, average, keep=keep)


def together(runs: Sequence[Checkpoints]) -> list[Saved | None]:
    """Choose a state of each run to resume from, such that all are after the same round of steps.

    Runs whose rows go through the model together must resume from the same step, or a pass would hold
    other rows than in a run that was not killed, and be rounded otherwise. A run that had ended by that step
    counts as being there. None: from the start.
    """
    if len(runs) == 1:
        return [next(runs[0].saved(), None)]
    states = [list(run.saved()) for run in runs]
    rounds = {saved.progress.step for run in states for saved in run}
    for step in sorted(rounds, reverse=True):
        chosen = [next((s for s in run if _is_at(s.progress, step)), None) for run in states]
        if all(saved is not None for saved in chosen):
            return chosen
    return [None for _ in runs]


def saved_step(folder: Path) -> int:
    """Return the steps that the newest good checkpoint has done; 0 where there is none."""
    for name in (FILE, PREVIOUS):
        if _is_there(folder / name):
            try:
                return read(folder / name)[0].progress.step
            except SoftPromptError:
                continue
    return 0


def started(folder: Path) -> Identity | None:
    """Return the identity of the run that wrote the newest checkpoint; None without a good one."""
    try:
        return read(folder / FILE)[1] if _is_there(folder / FILE) else None
    except SoftPromptError:  # the run that resumes from it reports that
        return None


def is_unfinished(folder: Path) -> bool:
    """Return whether there is a checkpoint."""
    return any(_is_there(folder / name) for name in (FILE, PREVIOUS))


def drop(folder: Path) -> None:
    """Remove the checkpoints in a folder."""
    for name in (FILE, PREVIOUS):
        _refuse_folder(folder / name)
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob(round_file(folder, "*").name):
        _refuse_folder(path)
        path.unlink()


def round_file(folder: Path, step: int | str) -> Path:
    """Return the file of the answers that the student wrote before a step."""
    return folder / f"on_policy-{step}.safetensors"


def _is_at(progress: TrainingCounts, step: int) -> bool:
    return progress.step == step or (progress.ended is not None and progress.step < step)


def _refuse_folder(path: Path) -> None:
    """Raise SoftPromptError where there is a folder in place of a checkpoint: it is not ours to remove."""
    if path.is_dir() and not path.is_symlink():
        raise SoftPromptError(
            f"{path} is damaged", why="it is a folder", fix="remove it, and run the same command again"
        )


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()
