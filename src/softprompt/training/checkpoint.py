"""Where a run stands, on disk: parameters, optimizer, the best so far. No pickle.

    checkpoint/checkpoint.safetensors   the newest      checkpoint/previous.safetensors   the one before it

Each is one safetensors file that carries a hash of all that it holds. It is replaced atomically: a kill at
any moment leaves the old one or the new one, never half of one. Where the newest is damaged, a run goes on
from the one before it: it takes the same steps again, to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, final

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from .._system.files import read_tensors, write_tensors
from ..config.identity import Identity, differences, other_run
from ..errors import SoftPromptError

FILE, PREVIOUS = "checkpoint.safetensors", "previous.safetensors"
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
RESTART = "add --restart to start anew, or choose another output=FOLDER"


@dataclass
class TrainingCounts:
    """What is counted while training."""

    step: Count = 0  # steps done
    best: tuple[float, ...] | None = None
    best_step: Count = 0
    evaluations_without_best: Count = 0
    seconds: Seconds = 0.0  # of steps and dev evaluations
    other_seconds: Seconds = 0.0  # of caches, the plain model and the last evaluation
    ended: Literal["finished", "early", "nan", "pruned"] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    ways: list[dict[str, str | int]] = field(default_factory=list)  # of `computed`, one after another

    def note(self, key: tuple[float, ...]) -> bool:
        """Record a dev score; True where it is the best so far."""
        comparable = not any(map(math.isnan, key))  # NaN as the first would stay the best for ever
        if comparable and (self.best is None or key > self.best):
            self.best, self.best_step, self.evaluations_without_best = key, self.step, 0
            return True
        self.evaluations_without_best += 1
        return False


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read: whole, and of this run."""

    path: Path
    progress: TrainingCounts
    tensors: dict[str, Tensor]

    def fill(
        self, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> tuple[TrainingCounts, dict[str, Tensor]]:
        """Put its numbers into parameters and optimizer; what was counted, and the best parameters.

        Raises SoftPromptError where it holds other parameters.
        """
        states = self._states(parameters)
        best = {name: self._like(f"best/{name}", parameter) for name, parameter in parameters.items()}
        now = {name: self._like(f"now/{name}", parameter) for name, parameter in parameters.items()}
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(now[name])
                if states[name]:
                    optimizer.state[parameter] = states[name]
        return self.progress, best

    def _states(self, parameters: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """What the optimizer knows of each parameter."""
        found: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
        for key in self.tensors:
            place, _, rest = key.partition("/")
            part, _, name = rest.partition("/") if place == "optimizer" else ("", "", rest)
            if name not in found or place not in ("now", "best", "optimizer"):
                raise damaged(self.path, f"it holds '{key}', which is not trained")
            if place == "optimizer" and part == "step":  # AdamW keeps it on the CPU
                found[name][part] = self._like(key, torch.zeros(()))
            elif place == "optimizer":
                found[name][part] = self._like(key, parameters[name])
        return found

    def _like(self, key: str, parameter: Tensor) -> Tensor:
        found = self.tensors.get(key)
        if found is None or found.shape != parameter.shape or found.dtype != parameter.dtype:
            raise damaged(self.path, f"'{key}' is missing, or of another shape or type")
        return found.to(parameter.device)


@final
class Checkpoints:
    """Those of one run in its folder. `identity` says of which recipe, rows and base."""

    def __init__(
        self, folder: Path, identity: Identity, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.folder, self._identity, self._say = folder, identity, say

    def saved(self) -> Iterator[Saved]:
        """The good ones, the newest first; none where there is none.

        Raises SoftPromptError where one belongs to another run, and where all that are there are damaged.
        """
        problem, good = None, 0
        for name in (FILE, PREVIOUS):
            path = self.folder / name
            _refuse_folder(path)
            if not _is_there(path):
                continue
            try:
                found, identity = _read(path)
            except SoftPromptError as error:
                problem = problem or error
                continue
            if different := differences(identity, self._identity):
                raise other_run(self.folder.parent, different)
            if problem is not None and not good:
                self._say(f"{problem.what} ({problem.why}): going on from the one before it")
            good += 1
            yield found
        if problem is not None and not good:
            raise problem

    def begin_with(self, chosen: Saved | None) -> None:
        """Go on from `chosen`, which becomes the newest: what came after it, or is damaged, is dropped."""
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
    ) -> None:
        """Everything a resumed run needs."""
        tensors = {f"now/{name}": p for name, p in parameters.items()}
        tensors |= {f"best/{name}": p for name, p in best.items()}
        for name, parameter in parameters.items():
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = value
        tensors = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        said = {"identity": json.dumps(self._identity), "progress": json.dumps(asdict(progress))}
        digest = {"digest": _digest(tensors, said)}
        write_tensors(self.folder / FILE, tensors, said | digest, keep=self.folder / PREVIOUS)


def together(several: Sequence[Checkpoints]) -> list[Saved | None]:
    """A state of each run to go on from, such that all are after the same round of steps.

    Runs whose rows go through the model together must be where they were together, or a pass would hold
    other rows than in a run that was not killed, and be rounded otherwise. One that had ended by then has
    ended. None: from the start.
    """
    if len(several) == 1:
        return [next(several[0].saved(), None)]
    states = [list(one.saved()) for one in several]
    rounds = {found.progress.step for own in states for found in own}
    for step in sorted(rounds, reverse=True):
        chosen = [next((s for s in own if _is_at(s.progress, step)), None) for own in states]
        if all(found is not None for found in chosen):
            return chosen
    return [None for _ in several]


def saved_step(folder: Path) -> int:
    """Steps that the newest good checkpoint has done; 0 where there is none."""
    for name in (FILE, PREVIOUS):
        if _is_there(folder / name):
            try:
                return _read(folder / name)[0].progress.step
            except SoftPromptError:
                continue
    return 0


def started(folder: Path) -> Identity | None:
    """Whose the newest checkpoint is, if it is good; None where there is none."""
    try:
        return _read(folder / FILE)[1] if _is_there(folder / FILE) else None
    except SoftPromptError:  # whoever goes on with it says so
        return None


def is_unfinished(folder: Path) -> bool:
    """Whether there is anything to go on from."""
    return any(_is_there(folder / name) for name in (FILE, PREVIOUS))


def drop(folder: Path) -> None:
    """Remove what is there."""
    for name in (FILE, PREVIOUS):
        _refuse_folder(folder / name)
        (folder / name).unlink(missing_ok=True)


def damaged(path: Path, why: str) -> SoftPromptError:
    """The one error of a checkpoint that cannot be gone on from."""
    return SoftPromptError(f"{path} is damaged", why=why, fix=RESTART)


def _is_at(progress: TrainingCounts, step: int) -> bool:
    return progress.step == step or (progress.ended is not None and progress.step < step)


def _refuse_folder(path: Path) -> None:
    """Raises SoftPromptError where a folder stands in a checkpoint's place: it is not ours to remove."""
    if path.is_dir() and not path.is_symlink():
        raise SoftPromptError(
            f"{path} is damaged", why="it is a folder", fix="remove it, and run the same command again"
        )


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _read(path: Path) -> tuple[Saved, Identity]:
    """A checkpoint and whose it is. Raises SoftPromptError where it is damaged."""
    try:
        tensors, said = read_tensors(path), _metadata(path)
    except SoftPromptError as error:
        raise damaged(path, error.why or error.what) from None
    if "digest" not in said and "identity" in said:
        raise other_run(path.parent.parent, ["it was started by an earlier version of softprompt"])
    content = {key: said.get(key, "") for key in ("identity", "progress")}
    if said.get("digest") != _digest(tensors, content):
        raise damaged(path, "its content does not match its hash")
    try:
        identity = json.loads(content["identity"])
        progress = TypeAdapter(TrainingCounts).validate_python(json.loads(content["progress"]))
    except (ValueError, ValidationError, RecursionError) as error:
        raise damaged(path, str(error).splitlines()[0]) from None
    if not isinstance(identity, dict):
        raise damaged(path, "it does not say whose it is")
    return Saved(path, progress, tensors), identity


def _digest(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> str:
    """sha256 (hex) of names, types, shapes and bytes, and of what is said beside them."""
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, str(error)) from None
