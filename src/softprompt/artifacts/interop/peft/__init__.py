"""Import from and export to Hugging Face PEFT: soft prompts, prefixes, cartridges, LLaMA-Adapters.

CPT is imported only. Exported adapters load with `PeftModel.from_pretrained` and give the same logits;
imported ones become artifacts like any other. This was checked with PEFT 0.21.2, which need not be installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...._system.paths import expanded
from ....errors import SoftPromptError
from ....lm.base import LanguageModel
from ....lm.loading import ALIASES
from ....lm.locate import looks_local
from ...artifact import MANIFEST, VECTORS, Artifact
from ...tensors import read_prompts
from .. import check_free, foreign
from . import files, head
from .files import Adapter
from .reading import check_kind, from_adapter
from .writing import check_places, to_adapter

__all__ = ["Adapter", "Imported", "base_name", "check", "export", "import_adapter"]


@dataclass(frozen=True)
class Imported:
    """An adapter that became an artifact, with notes for the user."""

    artifact: Artifact
    kind: str  # PEFT's type
    notes: tuple[str, ...]


def export(
    artifact: Artifact,
    lm: LanguageModel,
    folder: Path,
    *,
    prompt: str | None = None,
    materialise: bool = False,
    other_base: bool = False,
) -> Adapter:
    """Write a tuned prompt as a PEFT adapter; with `materialise` its vectors alone, without their network.

    Raises SoftPromptError with the reason where PEFT cannot hold it exactly.
    """
    check_stored(artifact)
    head.check(artifact, lm)
    names = artifact.prompts if prompt is None else (artifact.prompts[artifact.index(prompt)],)
    chosen = {name: artifact.index(name) for name in names}
    method = artifact.method(lm, trainable=not materialise, other_base=other_base)
    adapter = head.with_head(to_adapter(method, lm, chosen), lm)
    name = artifact.manifest["base"]["name"]
    adapter.config["base_model_name_or_path"] = None if name in ALIASES else name
    files.write(folder, adapter)
    return adapter


def check_stored(artifact: Artifact) -> None:
    """Check an artifact without its base model. Raises SoftPromptError where PEFT cannot hold it."""
    mode = artifact.manifest["base"]["mode"]
    if mode != "frozen":
        raise SoftPromptError(
            f"{artifact} trained the base model too (base={mode})",
            why="the prompt alone, on the base as it was, would answer differently",
            fix="train it with base=frozen",
        )
    if artifact.is_static:
        check_places(read_prompts(artifact.path / VECTORS, artifact.prompts).prompts[0])


def check(folder: Path, out: Path) -> None:
    """Check an import without the base model. Raises SoftPromptError where it is refused."""
    check_kind(files.read(folder))
    check_free(out, MANIFEST, "a tuned prompt")


def base_name(folder: Path) -> str:
    """Return the base model that an adapter names.

    Raises SoftPromptError where the name does not lead to it.
    """
    config = files.read(folder).config
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not name or not isinstance(name, str):
        raise SoftPromptError(f"{folder} names no base model", fix="add --model NAME, its base model")
    if Path(expanded(name)).exists():
        return name
    if looks_local(name):
        raise SoftPromptError(
            f"the base model of {folder} is not here: {name}",
            why="its adapter_config.json names the path where it was when the adapter was trained",
            fix="add --model with the folder or the hub id of that model",
        )
    if revision not in (None, "", "main"):
        raise SoftPromptError(
            f"{folder} was trained on revision '{revision}' of {name}",
            why="the newest one may have other weights",
            fix=f"hf download {name} --revision {revision} --local-dir FOLDER, and add --model FOLDER; "
            f"or add --model {name}, if the newest is the same",
        )
    return name


def import_adapter(folder: Path, lm: LanguageModel, out: Path, *, prompts: Sequence[str] = ()) -> Imported:
    """Make an artifact of an adapter that PEFT saved for the model `lm`.

    `prompts` names its tasks; by default "default", or task-0, task-1, … where there are several.
    """
    adapter = files.read(folder)
    read = from_adapter(adapter, lm)
    names = tuple(prompts) or _names(read.prompts)
    if len(set(names)) != read.prompts:
        raise SoftPromptError(
            f"{len(set(names))} names for {read.prompts} prompts",
            why="each needs its own name",
            fix=f"give --prompt NAME {read.prompts} times, or leave it out",
        )
    source = f"PEFT {adapter.kind} {folder}"
    saved = foreign.save(out, lm, read.method, read.options, read.state, names, source)
    return Imported(saved, adapter.kind, read.notes)


def _names(count: int) -> tuple[str, ...]:
    return ("default",) if count == 1 else tuple(f"task-{number}" for number in range(count))
