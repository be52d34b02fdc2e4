"""`softprompt import` makes a tuned prompt of another library's adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .export import Library
from .opening import ModelName, TrustCode
from .output import Json, Reply, log

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The folder that save_pretrained wrote.", show_default=False)
]


def import_(
    folder: Folder,
    library: Annotated[Library, typer.Option("--from", help="The library that wrote it.")],
    model: ModelName = None,
    trust_remote_code: TrustCode = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="ARTIFACT", help="Default: runs/ and FOLDER's name.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", metavar="NAME", help="Its name; give it once for each task, where there are several."
        ),
    ] = None,
    json: Json = False,
) -> Reply:
    """Make a tuned prompt of a Hugging Face PEFT adapter.

    The base model is the one that the adapter names, unless --model names another.

    \b
    Example:
      softprompt import adapter --from peft --model HuggingFaceTB/SmolLM2-135M --out runs/imported
    """
    from ..artifacts.interop import peft
    from ..errors import SoftPromptError
    from ..lm.loading import load

    if library is not Library.peft:
        raise SoftPromptError(
            f"nothing is imported from {library.value}",
            why="a slot's state holds keys and values for one engine, and not the prompt",
            fix="--from peft, for a folder that PEFT's save_pretrained wrote",
        )
    target = out or Path("runs") / folder.resolve().name
    peft.check(folder, target)
    name = model or peft.base_name(folder)
    log(f"loading {name} …")
    lm = load(name, trust_remote_code=trust_remote_code)
    imported = peft.import_adapter(folder, lm, target, prompts=prompt or ())
    manifest = imported.artifact.manifest
    data = {
        "folder": str(folder),
        "from": library.value,
        "out": str(target),
        "peft_type": imported.kind,
        "method": manifest["method"],
        "options": manifest["options"],
        "prompts": manifest["prompts"],
        "notes": list(imported.notes),
    }
    lines = [f"{target}: {manifest['method']} ({', '.join(manifest['prompts'])}), from {imported.kind}"]
    return Reply(data, "\n".join([*lines, *(f"note: {note}" for note in imported.notes)]))
