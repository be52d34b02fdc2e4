"""PEFT's folder: `adapter_config.json` beside `adapter_model.safetensors`.

PEFT itself is not needed to read or write one. This file knows nothing of methods and models.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import SoftPromptError
from ...files import check_pulled, read_tensors, write_tensors, write_text

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"


@dataclass(frozen=True, slots=True)
class Adapter:
    """One PEFT adapter: what its config says (with `peft_type`), and its tensors by PEFT's names."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()  # what whoever moves it between the libraries should know

    @property
    def kind(self) -> str:
        """`PROMPT_TUNING`, `PREFIX_TUNING`, …"""
        return str(self.config["peft_type"])


def read(folder: Path) -> Adapter:
    """An adapter that PEFT saved. Raises SoftPromptError for a missing, damaged or pickled one."""
    config = _read_config(folder / CONFIG)
    if not (folder / WEIGHTS).exists() and (folder / PICKLE).exists():
        raise SoftPromptError(
            f"{folder / PICKLE} is not read",
            why="it is a pickle, which can run any code when it is opened",
            fix="load it with PEFT where you trust it, and save_pretrained again: that writes safetensors",
        )
    if not (folder / WEIGHTS).exists():
        raise SoftPromptError(
            f"no {WEIGHTS} in {folder}", why="it holds the vectors", fix="copy the whole folder"
        )
    tensors = read_tensors(folder / WEIGHTS)
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise SoftPromptError(
            f"'{broken[0]}' of {folder / WEIGHTS} holds numbers that are not finite",
            why="every answer of the model would be nonsense",
            fix="train it again with a smaller learning rate",
        )
    return Adapter(config, {name: tensor.float() for name, tensor in tensors.items()})


def write(folder: Path, adapter: Adapter) -> None:
    """Write the folder; the config last, so that one which has it is whole."""
    check_free(folder)
    tensors = {name: tensor.float() for name, tensor in adapter.tensors.items()}
    write_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})
    write_text(folder / CONFIG, json.dumps(adapter.config, indent=2, sort_keys=True) + "\n")


def check_free(folder: Path) -> None:
    """Raises SoftPromptError where an adapter cannot be written to the folder without losing another."""
    if (folder / CONFIG).exists():
        raise SoftPromptError(
            f"{folder} already holds an adapter", why="it would be lost", fix="choose another --out FOLDER"
        )
    if folder.exists() and not folder.is_dir():
        raise SoftPromptError(f"{folder} is a file", fix="choose another --out FOLDER")


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise SoftPromptError(
            f"no PEFT adapter at {path.parent}",
            why=f"there is no {CONFIG} in it",
            fix="give the folder that save_pretrained wrote",
        )
    check_pulled(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
            raise ValueError("it names no peft_type")
    except ValueError as error:
        raise SoftPromptError(
            f"{path} is damaged", why=str(error), fix="restore it from a copy, or save the adapter again"
        ) from None
    return config
