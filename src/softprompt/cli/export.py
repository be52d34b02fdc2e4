"""`softprompt export`: a tuned prompt in another library's format."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .opening import ArtifactFolder, ModelName, OtherBase, PromptName
from .output import Json, Reply, log


class Library(str, Enum):
    """Whose format."""

    peft = "peft"


def export(
    artifact: ArtifactFolder,
    to: Annotated[Library, typer.Option("--to", help="The library that will load it.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Default: ARTIFACT-peft, beside it.")
    ] = None,
    prompt: PromptName = None,
    materialise: Annotated[
        bool,
        typer.Option("--materialise", help="The vectors alone, without the network that made them."),
    ] = False,
    model: ModelName = None,
    other_base: OtherBase = False,
    json: Json = False,
) -> Reply:
    """Write a tuned prompt as a Hugging Face PEFT adapter.

    It gives the same answers there; what PEFT cannot hold exactly is refused with the reason.

    \b
    Example:
      softprompt export runs/prompt --to peft --out adapter
      softprompt export runs/many --to peft --prompt joke --materialise
    """
    from .. import artifact as artifacts
    from ..interop import peft
    from ..prepare import saved_base

    opened = artifacts.load(artifact)
    base = opened.manifest["base"]
    log(f"loading {model or base['name']} …")
    lm = saved_base(opened, model)
    folder = out or artifact.with_name(f"{artifact.resolve().name}-{to.value}")
    adapter = peft.export(opened, lm, folder, prompt=prompt, materialise=materialise, other_base=other_base)
    data = {
        "artifact": str(artifact),
        "out": str(folder),
        "to": to.value,
        "peft_type": adapter.kind,
        "prompts": list(opened.prompts if prompt is None else (prompt,)),
        "tensors": {name: list(tensor.shape) for name, tensor in adapter.tensors.items()},
        "notes": list(adapter.notes),
    }
    lines = [f"{folder}: {adapter.kind} of {opened.manifest['method']}"]
    return Reply(data, "\n".join([*lines, *(f"note: {note}" for note in adapter.notes)]))
