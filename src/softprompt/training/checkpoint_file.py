"""One file of a checkpoint holds parameters, optimizer and counts as tensors and JSON, under a hash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .._system.files import read_tensors, write_tensors
from ..config.identity import Identity, other_run
from ..errors import SoftPromptError

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
RESTART = "add --restart to start anew, or choose another output=FOLDER"


@dataclass
class TrainingCounts:
    """Counts and scores of a run, updated while it trains."""

    step: Count = 0  # steps done
    best: tuple[float, ...] | None = None
    best_step: Count = 0
    evaluations_without_best: Count = 0
    seconds: Seconds = 0.0  # of steps and dev evaluations
    other_seconds: Seconds = 0.0  # of caches, the plain model and the last evaluation
    ended: Literal["finished", "early", "nan", "pruned"] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    ways: list[dict[str, str | int]] = field(default_factory=list)  # see `numerics`, in order

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
    """A checkpoint that was read and matches its hash."""

    path: Path
    progress: TrainingCounts
    tensors: dict[str, Tensor]

    def fill(
        self, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> tuple[TrainingCounts, dict[str, Tensor]]:
        """Copy its numbers into parameters and optimizer; return the counts and the best parameters.

        Raises SoftPromptError where the checkpoint holds other parameters.
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

    def fill_average(self, average: Mapping[str, Tensor]) -> None:
        """Copy its average of the parameters into `average`.

        Raises SoftPromptError where the checkpoint holds none, or that of other parameters.
        """
        for name, tensor in average.items():
            tensor.copy_(self._like(f"average/{name}", tensor))

    def _states(self, parameters: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Return the optimizer's state of each parameter."""
        states: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
        for key in self.tensors:
            place, _, rest = key.partition("/")
            part, _, name = rest.partition("/") if place == "optimizer" else ("", "", rest)
            if name not in states or place not in ("now", "best", "average", "optimizer"):
                raise damaged(self.path, f"it holds '{key}', which is not trained")
            if place == "optimizer" and part == "step":  # AdamW keeps it on the CPU
                states[name][part] = self._like(key, torch.zeros(()))
            elif place == "optimizer":
                states[name][part] = self._like(key, parameters[name])
        return states

    def _like(self, key: str, parameter: Tensor) -> Tensor:
        tensor = self.tensors.get(key)
        if tensor is None or tensor.shape != parameter.shape or tensor.dtype != parameter.dtype:
            raise damaged(self.path, f"'{key}' is missing, or of another shape or type")
        return tensor.to(parameter.device)


def damaged(path: Path, why: str) -> SoftPromptError:
    """Make the error for a checkpoint from which no run can resume."""
    return SoftPromptError(f"{path} is damaged", why=why, fix=RESTART)


def write(
    path: Path,
    identity: Identity,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: TrainingCounts,
    best: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    *,
    keep: Path,
) -> None:
    """Write everything that a resumed run needs; the file that was at `path` is kept at `keep`."""
    tensors = {f"now/{name}": p for name, p in parameters.items()}
    tensors |= {f"best/{name}": p for name, p in best.items()}
    tensors |= {f"average/{name}": p for name, p in average.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    tensors = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    metadata = {"identity": json.dumps(identity), "progress": json.dumps(asdict(progress))}
    write_tensors(path, tensors, metadata | {"digest": _digest(tensors, metadata)}, keep=keep)


def read(path: Path) -> tuple[Saved, Identity]:
    """Read a checkpoint and the identity of its run. Raises SoftPromptError where it is damaged."""
    try:
        tensors, metadata = read_tensors(path), _metadata(path)
    except SoftPromptError as error:
        raise damaged(path, error.why or error.what) from None
    if "digest" not in metadata and "identity" in metadata:
        raise other_run(path.parent.parent, ["it was started by an earlier version of softprompt"])
    content = {key: metadata.get(key, "") for key in ("identity", "progress")}
    if metadata.get("digest") != _digest(tensors, content):
        raise damaged(path, "its content does not match its hash")
    try:
        identity = json.loads(content["identity"])
        progress = TypeAdapter(TrainingCounts).validate_python(json.loads(content["progress"]))
    except (ValueError, ValidationError, RecursionError) as error:
        raise damaged(path, str(error).splitlines()[0]) from None
    if not isinstance(identity, dict):
        raise damaged(path, "it does not say whose it is")
    return Saved(path, progress, tensors), identity


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Hash names, types, shapes and bytes of the tensors, and the metadata: sha256, hex."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, str(error)) from None
