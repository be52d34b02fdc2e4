"""Write an artifact of vectors that were trained elsewhere; its manifest names the source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import methods
from ..._system.provenance import provenance
from ...config.load import recipe_from_dict
from ...lm.base import LanguageModel
from ...lm.loading import fingerprint
from ...methods.base import Setting
from .. import artifact as artifacts
from ..artifact import MANIFEST, Artifact
from ..manifest import UNKNOWN_DATA, UNSCORED
from . import check_free


def save(
    out: Path,
    lm: LanguageModel,
    method: str,
    options: Mapping[str, Any],
    state: Mapping[str, Tensor],
    prompts: tuple[str, ...],
    source: str,
) -> Artifact:
    """Write `state` as an artifact of the registered method, with one prompt for each name, as `tune` does.

    `source` names its origin. Raises SoftPromptError where `out` holds a tuned prompt.
    """
    check_free(out, MANIFEST, "a tuned prompt")
    # any start of the right shape will do: the values come from `state`
    built = methods.build(method, Setting(lm, prompts), {**options, "init": "vocab"})
    built.load_state_dict(dict(state))
    known = methods.find(method).options()
    start = {"init": "artifact", "artifact": source} if "artifact" in known else {}
    full = {name: known[name].default for name in known} | dict(options) | start
    return artifacts.save(out, built.to(lm.device), lm, manifest_of(out, lm, method, full, prompts, source))


def manifest_of(
    out: Path,
    lm: LanguageModel,
    method: str,
    options: dict[str, Any],
    prompts: tuple[str, ...],
    source: str,
    *,
    base: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the manifest of vectors that no run of `tune` trained.

    `base` is the fingerprint of `lm`, where it is known already: it is slow to compute for a large model.
    """
    recipe = {
        "model": lm.origin.recipe(lm.name),
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
            **lm.origin.record(),
            "mode": "frozen",
            "options": {},
            "fingerprint": fingerprint(lm) if base is None else dict(base),
            "dtype": str(lm.dtype).removeprefix("torch."),
        },
        "imported": source,
        "recipe": recipe_from_dict(recipe).to_dict(),
        "data": UNKNOWN_DATA,
        "trained_parameters": 0,  # none of them here
        "plan": "none",
        "training": {"stopped": "imported", "steps": 0, "best_step": 0, "seconds": 0.0, "history": []},
        "dev": UNSCORED,
        "plain": UNSCORED,
        **provenance(),
    }
