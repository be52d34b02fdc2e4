"""`softprompt compile` converts tuned prompts for engines that keep a KV cache."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .opening import ModelName, OtherBase, TrustCode
from .output import Json, Reply, log, size, table


class Precision(str, Enum):
    """The type in which keys and values are computed and stored."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def compile_(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="ARTIFACT...", help="Tuned prompts, or folders of them.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="One folder for each base model.")],
    dtype: Annotated[
        Precision, typer.Option("--dtype", help="Type of keys and values; float32 is exact.")
    ] = Precision.float32,
    model: ModelName = None,
    other_base: OtherBase = False,
    trust_remote_code: TrustCode = False,
    json: Json = False,
) -> Reply:
    """Compile prompts for engines that keep a KV cache.

    Each becomes the keys and values that a cache holds after it, checked with the model. The prompts of a
    folder are named by their path in it. Prompts that cannot be compiled exactly are refused; the others are
    compiled.

    \b
    Example:
      softprompt compile runs/style --out compiled
      softprompt compile prompts/ --out compiled --dtype bfloat16
    """
    from ..artifacts.interop.kv_cache.batch import compile_all, sources
    from ..artifacts.interop.kv_cache.folder import Folder
    from ..errors import SoftPromptError
    from ..lm.loading import load_saved
    from ..serve.bases import called

    refused: list[tuple[str, SoftPromptError]] = []
    prompts = sources(paths, refused)
    if not prompts:
        raise refused[0][1]
    for name, error in refused:
        log(f"{name}: {error.line}")
    base = prompts[0].artifact.manifest["base"]
    if model is None and not other_base:  # a folder of another base is refused before a model is loaded
        Folder(out).check(base["name"], base["fingerprint"])
    log(f"loading {model or base['name']} …")
    lm = load_saved(base, model, dtype=dtype.value, trust_remote_code=trust_remote_code)
    compiled = []
    results = compile_all(prompts, lm, out, other_base=other_base, taken=called(model or base["name"]))
    for source, result in zip(prompts, results, strict=True):
        if isinstance(result, SoftPromptError):
            if len(prompts) == 1 and not refused:
                raise result
            refused.append((source.name, result))
            log(f"{source.name}: {result.line}")
        else:
            compiled.append(result)
    data = {
        "out": str(out),
        "model": lm.name,
        "prompts": {
            entry.name: {"sha256": entry.sha256, "vectors": entry.length, "bytes": entry.bytes}
            for entry in compiled
        },
        "refused": {
            name: {"what": error.what, "why": error.why, "fix": error.fix} for name, error in refused
        },
    }
    rows = [
        (entry.name, f"{entry.length} vectors, {size(entry.bytes)}, {entry.sha256[:16]}")
        for entry in compiled
    ]
    summary = f"{out}: {len(compiled)} compiled for {lm.name}, {len(refused)} refused"
    return Reply(data, "\n".join([summary, table(rows)] if rows else [summary]), code=1 if refused else 0)
