"""The content of `softprompt.json`, the manifest of a prompt that was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from .._system.memory import peak_memory
from .._system.provenance import provenance
from ..artifacts.nearest import INPUTS, written
from ..build import base_options
from ..data.row_notes import Remark
from ..evaluation.records import Evaluation, dev_key
from ..methods.base import SoftPrompt
from .decisive import options
from .learner import Outcome
from .prepare import Prepared


def manifest(
    prepared: Prepared,
    outcome: Outcome,
    dev: Evaluation,
    plain: Evaluation,
    *,
    moved: float | None,
    remarks: Sequence[Remark],
    seconds: float,
    leakage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return all of the manifest except the files' hashes.

    `seconds` are those of the last evaluation; `leakage` is the change on unrelated text, if it was measured.
    """
    recipe, lm = prepared.recipe, prepared.lm
    return {
        "method": recipe.method.name,
        "options": options(recipe),
        "prompts": list(prepared.prompts),
        "labels": list(prepared.encoder.labels) if prepared.encoder.labels else None,
        "base": {
            "name": lm.name,
            **lm.origin.record(),
            "mode": recipe.base.mode,
            "options": base_options(recipe),
            "fingerprint": prepared.base,
            "dtype": str(lm.dtype).removeprefix("torch."),
        },
        "recipe": recipe.recorded().to_dict(),
        "data": {
            "fingerprint": prepared.data_fingerprint,
            "rows": len(prepared.train),
            "dev_rows": len(prepared.dev),
            "remarks": [asdict(remark) for remark in remarks],
            INPUTS: written(prepared.inputs),
        },
        "trained_parameters": prepared.trained_parameters,
        "carried": None if prepared.carried is None else asdict(prepared.carried),
        **(
            {"nearest": {n: asdict(near) for n, near in prepared.nearest.items()}} if prepared.nearest else {}
        ),
        "plan": prepared.plan.mode,
        "training": {
            "stopped": outcome.stopped,
            "steps": outcome.step,
            "best_step": outcome.best_step,
            "seconds": round(outcome.seconds, 1),
            # all parts of a run that was stopped and resumed, as `seconds` are
            "seconds_with_caches": round(outcome.seconds + outcome.other_seconds + seconds, 1),
            "peak_memory_bytes": peak_memory(),
            "history": outcome.history,
            "dev_key": list(dev_key(dev).key),
            "moved": moved,
            **({} if leakage is None else {"leakage": leakage}),
        },
        "identity": prepared.identity(),
        "dev": dev.to_json(),
        "plain": plain.to_json(),
        **provenance(),
    }


def trained_copy(method: SoftPrompt) -> list[Tensor]:
    """Copy the method's trained parameters."""
    return [p.detach().clone() for p in method.parameters() if p.requires_grad]


def moved(method: SoftPrompt, start: Sequence[Tensor]) -> float | None:
    """The distance of the trained parameters from `start`, as a share of its norm; None without any."""
    pairs = list(zip(trained_copy(method), start, strict=True))
    norm = sum(float(before.double().square().sum()) for _, before in pairs)
    if not norm:
        return None
    return (sum(float((now - before).double().square().sum()) for now, before in pairs) / norm) ** 0.5
