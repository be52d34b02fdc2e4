"""`softprompt compile`: tuned prompts in the form that engines with a KV cache serve."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .opening import ModelName, OtherBase
from .output import Json, Reply, log, size, table


class Precision(str, Enum):
    """What keys and values are computed and stored in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def compile_(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="ARTIFACT...", help="Tuned prompts, or folders of them.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="One folder for each base model.")],
    dtype: Annotated[
        Precision, typer.Option("--dtype", help="Computed and stored in; float32 is exact.")
    ] = Precision.float32,
    model: ModelName = None,
    other_base: OtherBase = False,
    json: Json = False,
) -> Reply:
    """Compile prompts for engines that keep a KV cache.

    Each becomes the keys and values that a cache holds after it, checked against the model. A folder's
    prompts are named by their path in it. What cannot be compiled exactly is refused, and the others go on.

    \b
    Example:
      softprompt compile runs/style --out compiled
      softprompt compile prompts/ --out compiled --dtype bfloat16
    """
    from ..artifacts.interop.kv_cache.batch import compile_all, sources
    from ..artifacts.interop.kv_cache.folder import Folder
    from ..errors import SoftPromptError
    from ..lm.loading import load
    from ..serve.bases import called

    refused: list[tuple[str, SoftPromptError]] = []
    found = sources(paths, refused)
    if not found:
        raise refused[0][1]
    for name, error in refused:
        log(f"{name}: {error.line}")
    base = found[0].artifact.manifest["base"]
    if model is None and not other_base:  # a folder of another base is told before a model is loaded
        Folder(out).check(base["name"], base["fingerprint"])
    log(f"loading {model or base['name']} …")
    lm = load(model or base["name"], dtype=dtype.value)
    made = []
    results = compile_all(found, lm, out, other_base=other_base, taken=called(model or base["name"]))
    for source, result in zip(found, results, strict=True):
        if isinstance(result, SoftPromptError):
            if len(found) == 1 and not refused:
                raise result
            refused.append((source.name, result))
            log(f"{source.name}: {result.line}")
        else:
            made.append(result)
    data = {
        "out": str(out),
        "model": lm.name,
        "prompts": {
            entry.name: {"sha256": entry.sha256, "vectors": entry.length, "bytes": entry.bytes}
            for entry in made
        },
        "refused": {
            name: {"what": error.what, "why": error.why, "fix": error.fix} for name, error in refused
        },
    }
    rows = [
        (entry.name, f"{entry.length} vectors, {size(entry.bytes)}, {entry.sha256[:16]}") for entry in made
    ]
    summary = f"{out}: {len(made)} compiled for {lm.name}, {len(refused)} refused"
    return Reply(data, "\n".join([summary, table(rows)] if rows else [summary]), code=1 if refused else 0)
