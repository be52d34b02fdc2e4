"""An attached prompt on disk: an artifact, as `tune` writes it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..artifacts import artifact as artifacts
from ..artifacts.hub import upload
from ..artifacts.hub.reference import parse
from ..artifacts.interop.foreign import manifest_of
from .holder import MODULE, holder_of, without_prompt

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
    folder.mkdir(parents=True, exist_ok=True)
    with without_prompt(model):
        about = manifest_of(
            folder,
            holder.lm,
            holder.method,
            dict(holder.options),
            holder.prompts,
            "an attached model",
            base=holder.base,
        )
        about["recipe"]["template"] |= dict(holder.template)
        about["trained_parameters"] = sum(p.numel() for p in module.parameters() if p.requires_grad)
        artifacts.save(folder, module, holder.lm, about)
    if for_trainer:
        trained = {f"{MODULE}.{name}": tensor.contiguous() for name, tensor in module.state_dict().items()}
        save_file(trained, folder / RESUMED, metadata={"format": "pt"})
