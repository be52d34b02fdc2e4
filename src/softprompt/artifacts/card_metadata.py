"""The metadata of a model card, which the Hugging Face hub reads: library, base model, licence, scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..lm.loading import ALIASES
from ..lm.locate import on_hub
from ..lm.smollm2 import HUB_ID
from ..methods import METHODS

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

PIPELINES = {
    "generation": "text-generation",
    "preference": "text-generation",
    "classification": "text-classification",
    "choice": "multiple-choice",
    "token-classification": "token-classification",
    "regression": "text-classification",
    "embedding": "sentence-similarity",
}


@dataclass(frozen=True, slots=True)
class License:
    """The licence as the hub has it: an id; for the id `other`, a name and the address of its text too."""

    id: str | None = None
    name: str | None = None
    link: str | None = None

    def fields(self) -> dict[str, str]:
        named = {"license": self.id, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in named.items() if value is not None}


def hub_base(manifest: Mapping[str, Any]) -> str | None:
    """Return the base model's id on the hub; None where it is a folder or a file."""
    name = manifest["base"]["name"]
    if name == "smollm2":
        return HUB_ID
    return name if "/" in name and on_hub(name, ALIASES) else None


def metadata(
    manifest: Mapping[str, Any],
    name: str,
    license: License | None = None,
    more: Mapping[str, Any] | None = None,
) -> ModelCardData:
    """Return the metadata of an artifact called `name`; `more` holds fields that are not known here."""
    from huggingface_hub import ModelCardData

    base = hub_base(manifest)
    relation = "finetune" if manifest["base"]["mode"] == "full" else "adapter"
    given = dict(more or {})
    others = [tag for tag in given.pop("tags", ()) if tag not in METHODS]
    tags = ["softprompt", manifest["method"], *others]
    fields = {
        "library_name": "softprompt",
        "pipeline_tag": pipeline(manifest),
        **({"base_model": base, "base_model_relation": relation} if base else {}),
        **({"datasets": [data]} if (data := hub_rows(manifest)) else {}),
        **given,
        **(license or License()).fields(),
    }
    results = _results(manifest)
    return ModelCardData(
        **fields,
        tags=list(dict.fromkeys(tags)),
        **({"model_name": name, "eval_results": results} if results else {}),
    )


def pipeline(manifest: Mapping[str, Any]) -> str:
    """Return the hub's name of the task."""
    return PIPELINES.get(manifest["recipe"].get("task", {}).get("kind"), "text-generation")


def hub_rows(manifest: Mapping[str, Any]) -> str | None:
    """Return the data set on the hub that the rows are from; None for files."""
    source = str(manifest["recipe"]["data"].get("train") or "")
    return source.removeprefix("hf:").partition(":")[0] if source.startswith("hf:") else None


def _results(manifest: Mapping[str, Any]) -> list[Any]:
    """Return the scores of the dev rows, with their intervals."""
    from huggingface_hub import EvalResult

    dev, data = manifest["dev"], hub_rows(manifest)
    return [
        EvalResult(
            task_type=pipeline(manifest),
            dataset_type=data or "private",
            dataset_name=data or "the dev rows",
            dataset_split="dev",
            metric_type=name,
            metric_value=value,
            metric_name=f"{name} (dev rows)",
            metric_args={"interval_95": list(dev["intervals"][name]), "rows": dev["rows"][name]},
        )
        for name, value in dev["metrics"].items()
    ]
