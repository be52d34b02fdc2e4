"""The versions, the time and the command of a result are recorded."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from .secrets import without_secrets
from .version import version


def provenance() -> dict[str, Any]:
    """Return the part of a manifest that every artifact has, however it was made."""
    return {
        "versions": {
            "softprompt": version(),
            "torch": torch.__version__,
            "transformers": _version("transformers"),
            "python": platform.python_version(),
        },
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": without_secrets(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
