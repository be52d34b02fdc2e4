"""An attached prompt on disk: an artifact, as `tune` writes it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from .._system.files import unwritable
from .._system.paths import kind_of
from ..artifacts import artifact as artifacts
from ..artifacts.hub import upload
from ..artifacts.hub.reference import parse
from ..artifacts.interop.foreign import manifest_of
from ..errors import SoftPromptError
from ..lm.loading import fingerprint
from . import heads
from .holder import MODULE, holder_of, state_of, without_prompt

RESUMED = "model.safetensors"  # the file that transformers' trainers load to resume a run

#: Arguments of transformers' `save_pretrained` that an upload takes.
PUSHED = {"private", "revision", "token", "commit_message"}


def push(model: Any, repo_id: str, **options: Any) -> Any:
    """Upload the artifact that `save` would write; see `softprompt.push`."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / parse(repo_id, owned=False).name
        save(model, folder, for_trainer=False)
        return upload.push(folder, repo_id, **options)


def save(model: Any, folder: Path, *, for_trainer: bool) -> None:
    """Write the artifact and, for a trainer, the file of parameters that it resumes from."""
    holder, module = holder_of(model), getattr(model, MODULE)
    names = holder.lm.head_names
    head = {name: p for name, p in model.named_parameters() if name in names and p.requires_grad}
    if kind_of(folder, "the folder of the prompt") not in ("folder", "missing"):
        raise SoftPromptError(f"{folder} is no folder", why="a file has this name", fix="give another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    with without_prompt(model):
        base = dict(holder.base)
        now = state_of(model)
        if any(now.get(name) != state for name, state in holder.weights.items() if name not in names):
            base["weights"] = fingerprint(holder.lm)["weights"]  # somebody has changed the base since
        about = manifest_of(
            folder,
            holder.lm,
            holder.method,
            dict(holder.options),
            holder.prompts,
            "an attached model",
            base=base,
        )
        about["recipe"]["template"] |= dict(holder.template)
        if holder.lm.head is not None:
            wanted, about["labels"] = heads.task(model)
            about |= {"head": holder.own_class.__name__}
            about["recipe"]["task"] |= wanted
        trained = [p for p in module.parameters() if p.requires_grad]
        about["trained_parameters"] = sum(p.numel() for p in [*trained, *head.values()])
        artifacts.save(folder, module, holder.lm, about)
    if for_trainer:
        parts = {f"{MODULE}.{name}": tensor for name, tensor in module.state_dict().items()} | head
        tensors = {name: tensor.detach().contiguous() for name, tensor in parts.items()}
        save_file(tensors, folder / RESUMED, metadata={"format": "pt"})
