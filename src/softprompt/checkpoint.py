"""Where a run stands, on disk: parameters, optimizer, the best so far. No pickle.

A checkpoint is one safetensors file, replaced atomically: a kill at any moment leaves the old one or
the new one, never half of one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .errors import SoftPromptError
from .files import read_tensors, write_tensors

FILE = "checkpoint.safetensors"


@dataclass
class Progress:
    """What is counted while training."""

    step: int = 0  # steps done
    best: tuple[float, ...] | None = None
    best_step: int = 0
    evaluations_without_best: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)

    def note(self, key: tuple[float, ...]) -> bool:
        """Record a dev score; True where it is the best so far."""
        comparable = not any(map(math.isnan, key))  # NaN as the first would stay the best for ever
        if comparable and (self.best is None or key > self.best):
            self.best, self.best_step, self.evaluations_without_best = key, self.step, 0
            return True
        self.evaluations_without_best += 1
        return False


def write_checkpoint(
    folder: Path,
    identity: str,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    best: Mapping[str, Tensor],
) -> None:
    """Everything a resumed run needs; `identity` says of which recipe and data."""
    tensors = {f"now/{name}": p for name, p in parameters.items()}
    tensors |= {f"best/{name}": p for name, p in best.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    write_tensors(folder / FILE, tensors, {"identity": identity, "progress": json.dumps(asdict(progress))})


def read_checkpoint(
    folder: Path, identity: str, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor]] | None:
    """Fill parameters and optimizer from a checkpoint; None where there is none.

    Raises SoftPromptError where it belongs to another recipe or other data.
    """
    path = folder / FILE
    if not path.exists():
        return None
    tensors = _tensors(path)
    metadata = _metadata(path)
    if metadata["identity"] != identity:
        raise SoftPromptError(
            f"{folder.parent} holds the unfinished run of another recipe",
            why="the recipe, the data or the base model changed since it was started",
            fix="add --restart to start anew (drops the old checkpoint), or choose another output=FOLDER",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"now/{name}"])
            prefix, suffix = "optimizer/", f"/{name}"
            state = {
                key[len(prefix) : -len(suffix)]: value
                for key, value in tensors.items()
                if key.startswith(prefix) and key.endswith(suffix)
            }
            if state:
                moved = {k: v if k == "step" else v.to(parameter.device) for k, v in state.items()}
                optimizer.state[parameter] = moved
    best = {name: tensors[f"best/{name}"].to(parameter.device) for name, parameter in parameters.items()}
    saved = json.loads(metadata["progress"])
    saved["best"] = tuple(saved["best"]) if saved["best"] is not None else None
    return Progress(**saved), best


def saved_step(folder: Path) -> int:
    """Steps that a checkpoint has done; 0 where there is none."""
    path = folder / FILE
    if not path.exists():
        return 0
    _tensors(path)  # refuses a damaged one
    return int(json.loads(_metadata(path)["progress"])["step"])


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except SoftPromptError as error:
        fix = "add --restart to start anew, or choose another output=FOLDER"
        raise SoftPromptError(error.what, error.why, fix) from None


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})
