"""PEFT's folder has `adapter_config.json` and `adapter_model.safetensors`, or an older `adapter_model.bin`.

PEFT itself is not needed to read or write one. This file knows nothing of methods and models.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...._system.files import RESTORE, open_regular, read_bytes, read_tensors, write_tensors, write_text
from ....errors import SoftPromptError
from ...manifest import MANIFEST
from .. import check_free

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
MOST = 10_000_000  # bytes of a config
TAKEN = CONFIG, "an adapter"  # for `check_free`


@dataclass(frozen=True, slots=True)
class Adapter:
    """A PEFT adapter with its settings (`peft_type` among them) and its tensors by PEFT's names."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()  # for the user: differences between the libraries

    @property
    def kind(self) -> str:
        return str(self.config["peft_type"])


def read(folder: Path) -> Adapter:
    """Read an adapter that PEFT saved. Raises SoftPromptError for a missing, damaged or unsafe one."""
    config = _read_config(folder)
    # the order in which PEFT looks for them
    path = next((folder / name for name in (WEIGHTS, PICKLE) if (folder / name).exists()), None)
    if path is None:
        raise SoftPromptError(
            f"no {WEIGHTS} in {folder}", why="it holds the vectors", fix="copy the whole folder"
        )
    stored = read_tensors(path) if path.name == WEIGHTS else _unpickled(path)
    # float32 first: for 8-bit numbers torch has no test of whether they are finite
    tensors = {name: tensor.float() for name, tensor in stored.items()}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise SoftPromptError(
            f"'{broken[0]}' of {path} holds numbers that are not finite",
            why="every answer of the model would be nonsense",
            fix="train it again with a smaller learning rate",
        )
    return Adapter(config, tensors)


def write(folder: Path, adapter: Adapter) -> None:
    """Write the folder, the config last, so that a folder with a config is complete."""
    check_free(folder, *TAKEN)
    tensors = {name: tensor.float() for name, tensor in adapter.tensors.items()}
    write_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})
    write_text(folder / CONFIG, json.dumps(adapter.config, indent=2, sort_keys=True) + "\n")


def _unpickled(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a pickle with torch's safe reader, which runs no code of the file."""
    try:
        with open_regular(path) as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except SoftPromptError:
        raise
    except pickle.UnpicklingError as error:
        raise SoftPromptError(
            f"{path} is not read",
            why=f"it is a pickle that holds more than tensors, and could run code: {_line(error)}",
            fix="if you trust it: read it with torch.load(FILE, weights_only=False) in Python, and write its "
            f"tensors with safetensors.torch.save_file to {WEIGHTS}",
        ) from None
    except Exception as error:  # a damaged file makes torch's reader raise any exception
        raise SoftPromptError(f"{path} is damaged", why=_line(error), fix=RESTORE) from None
    size = path.stat().st_size
    if not isinstance(content, dict) or not all(_is_plain(value, size) for value in content.values()):
        raise SoftPromptError(
            f"{path} holds something else than the tensors of an adapter",
            why="PEFT's file is a table of plain tensors",
            fix="save the adapter again with PEFT's save_pretrained",
        )
    return {str(name): tensor.detach() for name, tensor in content.items()}


def _is_plain(value: Any, most: int) -> bool:
    """Tell whether it is a tensor with no more numbers than a file of `most` bytes can hold."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and value.numel() <= most
    )


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.exists():
        raise _no_adapter(folder)
    try:
        config = json.loads(read_bytes(path, MOST).decode("utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is not a JSON object")
    except (ValueError, RecursionError) as error:
        raise SoftPromptError(
            f"{path} is damaged", why=str(error), fix="restore it from a copy, or save the adapter again"
        ) from None
    if not isinstance(config.get("peft_type"), str):
        raise SoftPromptError(
            f"{path} names no peft_type",
            why="PEFT does not load it either; other libraries write files of this name too",
            fix="save the adapter again with PEFT's save_pretrained",
        )
    return config


def _no_adapter(folder: Path) -> SoftPromptError:
    """Say why there is no adapter at a path, and where there is one."""
    why, fix = f"there is no {CONFIG} in it", "give the folder that save_pretrained wrote"
    if folder.is_file():
        why, fix = "it is a file", f"give the folder that it is in: {folder.parent}"
    elif not folder.exists():
        why, fix = "there is no such folder", "check the path; of one on the hub: hf download OWNER/NAME "
        fix += "--local-dir FOLDER, and give FOLDER"
    elif inner := sorted(path.parent.relative_to(folder).as_posix() for path in _inner(folder)):
        why = f"its adapters are in folders below: {', '.join(inner)}"
        fix = f"give one of them: {folder / inner[-1]}"
    elif (folder / MANIFEST).exists():
        why, fix = "it is a tuned prompt already", "use it as it is: softprompt generate FOLDER"
    elif (folder / WEIGHTS).exists() or (folder / PICKLE).exists():
        fix = f"copy {CONFIG} into it, which save_pretrained wrote beside the vectors"
    return SoftPromptError(f"no PEFT adapter at {folder}", why=why, fix=fix)


def _inner(folder: Path) -> list[Path]:
    """Find configs one or two folders below: of a named adapter, of a checkpoint."""
    return [*folder.glob(f"*/{CONFIG}"), *folder.glob(f"*/*/{CONFIG}")][:50]
