"""An artifact of vectors that were trained elsewhere: the manifest says where from, and knows no scores."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import methods
from ...config.load import recipe_from_dict
from ...errors import SoftPromptError
from ...lm.base import LanguageModel
from ...lm.loading import fingerprint
from ...methods.base import Setting
from .. import artifact as artifacts
from ..artifact import MANIFEST, Artifact

UNSCORED: dict[str, Any] = {"metrics": {}, "intervals": {}, "rows": {}, "n": 0}


def save(
    out: Path,
    lm: LanguageModel,
    method: str,
    options: Mapping[str, Any],
    state: Mapping[str, Tensor],
    prompts: tuple[str, ...],
    source: str,
) -> Artifact:
    """Write `state` as an artifact of the registered method, one prompt a name, as `tune` would have.

    `source` says where it comes from. Raises SoftPromptError where `out` holds a tuned prompt.
    """
    check_free(out)
    # any start of the right shape will do: the values come from `state`
    built = methods.build(method, Setting(lm, prompts), {**options, "init": "vocab"})
    built.load_state_dict(dict(state))
    known = methods.find(method).options()
    start = {"init": "artifact", "artifact": source} if "artifact" in known else {}
    full = {name: known[name].default for name in known} | dict(options) | start
    return artifacts.save(out, built.to(lm.device), lm, _manifest(out, lm, method, full, prompts, source))


def check_free(out: Path) -> None:
    """Raises SoftPromptError where `out` holds a tuned prompt."""
    if (out / MANIFEST).exists():
        raise SoftPromptError(
            f"{out} already holds a tuned prompt", why="it would be lost", fix="choose another --out FOLDER"
        )


def _manifest(
    out: Path, lm: LanguageModel, method: str, options: dict[str, Any], prompts: tuple[str, ...], source: str
) -> dict[str, Any]:
    recipe = {
        "model": lm.name,
        "data": {"train": source, "prompt_field": "prompt" if len(prompts) > 1 else None},
        "method": {"name": method, **options},
        "output": str(out),
    }
    return {
        "method": method,
        "options": options,
        "prompts": list(prompts),
        "labels": None,
        "base": {
            "name": lm.name,
            "mode": "frozen",
            "options": {},
            "fingerprint": fingerprint(lm),
            "dtype": str(lm.dtype).removeprefix("torch."),
        },
        "imported": source,
        "recipe": recipe_from_dict(recipe).to_dict(),
        "data": {"fingerprint": "", "rows": 0, "dev_rows": 0},  # not known
        "trained_parameters": 0,  # none of them here
        "plan": "none",
        "training": {"stopped": "imported", "steps": 0, "best_step": 0, "seconds": 0.0, "history": []},
        "dev": UNSCORED,
        "plain": UNSCORED,
        "versions": {
            "softprompt": importlib.metadata.version("softprompt"),
            "torch": torch.__version__,
            "transformers": importlib.metadata.version("transformers"),
            "python": platform.python_version(),
        },
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
