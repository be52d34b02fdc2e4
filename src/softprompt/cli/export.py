"""`softprompt export` writes a tuned prompt in the format of another library or engine."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .opening import ArtifactFolder, ModelName, OtherBase, PromptName, TrustCode
from .output import Json, Reply, log, size, table

if TYPE_CHECKING:
    from ..artifacts.interop.llama_cpp.engine import Engine


class Library(str, Enum):
    """The library or engine whose format is written."""

    peft = "peft"
    llama_cpp = "llama.cpp"


NOT_TRIED = (
    "note: your engine was not tried; some builds restore nothing and report that they did: check n_restored "
    "and timings.cache_n of the next answer, as examples/llama_cpp_slots.py does"
)
Export = tuple[dict[str, Any], list[str]]  # data for programs, lines for people


class CacheType(str, Enum):
    """The type in which llama.cpp keeps keys and values."""

    f16 = "f16"
    f32 = "f32"


def export(
    artifact: ArtifactFolder,
    to: Annotated[Library, typer.Option("--to", help="The library or engine that will load it.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Default: ARTIFACT-peft, beside it.")
    ] = None,
    prompt: PromptName = None,
    materialise: Annotated[
        bool,
        typer.Option("--materialise", help="peft: the vectors alone, without the network that made them."),
    ] = False,
    gguf: Annotated[
        Path | None,
        typer.Option("--gguf", metavar="FILE", help="llama.cpp: the base model that the engine runs."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="FILE", help="llama.cpp: a slot that your engine saved, for --gguf."),
    ] = None,
    slots: Annotated[
        int, typer.Option("--slots", metavar="N", min=1, help="llama.cpp: the engine's --parallel.")
    ] = 1,
    cache_type: Annotated[
        CacheType, typer.Option("--cache-type", help="llama.cpp: the engine's --cache-type-k and -v.")
    ] = CacheType.f16,
    model: ModelName = None,
    other_base: OtherBase = False,
    trust_remote_code: TrustCode = False,
    json: Json = False,
) -> Reply:
    """Write a tuned prompt for Hugging Face PEFT or llama.cpp.

    It gives the same answers there; a prompt that the format cannot hold exactly is refused with the reason.

    \b
    Example:
      softprompt export runs/prompt --to peft --out adapter
      softprompt export runs/many --to peft --prompt joke --materialise
      softprompt export runs/style --to llama.cpp --gguf model.gguf --out slots
    """
    from ..artifacts import artifact as artifacts
    from ..artifacts.interop import check_free, llama_cpp, peft
    from ..artifacts.interop.peft import files as peft_files

    opened = artifacts.load(artifact)
    if prompt is not None:
        opened.index(prompt)  # an unknown one is refused before a model is loaded
    folder = out or _beside(opened, to.value)
    check_free(folder, *(peft_files if to is Library.peft else llama_cpp).TAKEN)
    if to is Library.peft:
        peft.check_stored(opened)
    log(f"loading {model or opened.manifest['base']['name']} …")
    common = {"prompt": prompt, "other_base": other_base, "trust": trust_remote_code}
    if to is Library.peft:
        result, lines = _to_peft(opened, folder, model, materialise=materialise, **common)
    else:
        engine = {"gguf": gguf, "state": state, "slots": slots, "cache_type": cache_type.value}
        result, lines = _to_llama_cpp(opened, folder, model, engine, **common)
    data = {"artifact": str(opened), "out": str(folder), "to": to.value, **result}
    return Reply(data, "\n".join(lines))


def _beside(opened: Any, to: str) -> Path:
    """Return the default folder: beside the artifact, or in the working directory where it was fetched."""
    if opened.reference is not None:
        return Path(f"{opened.reference.name}-{to}")
    return opened.path.with_name(f"{opened.path.resolve().name}-{to}")


def _to_peft(opened: Any, folder: Path, model: str | None, *, trust: bool, **options: Any) -> Export:
    from ..artifacts.interop import peft
    from ..build import saved_base

    lm = saved_base(opened, model, trust_remote_code=trust)
    adapter = peft.export(opened, lm, folder, **options)
    prompt = options["prompt"]
    data = {
        "peft_type": adapter.kind,
        "prompts": list(opened.prompts if prompt is None else (prompt,)),
        "tensors": {name: list(tensor.shape) for name, tensor in adapter.tensors.items()},
        "notes": list(adapter.notes),
    }
    head = f"{folder}: {adapter.kind} of {opened.manifest['method']}"
    return data, [head, *(f"note: {note}" for note in adapter.notes)]


def _to_llama_cpp(
    opened: Any, folder: Path, model: str | None, engine: dict[str, Any], *, trust: bool, **options: Any
) -> Export:
    from ..artifacts.interop import llama_cpp
    from ..artifacts.interop.llama_cpp.engine import version
    from ..lm.loading import load_saved

    name = model or opened.manifest["base"]["name"]
    saved, ran = _state(name, **engine)
    lm = load_saved(opened.manifest["base"], model, dtype="float32", trust_remote_code=trust)
    slots = llama_cpp.export(opened, lm, saved, folder, engine=ran, **options)
    entries = {
        slot.prompt: {"file": slot.file, "tokens": list(slot.tokens), "sha256": slot.sha256} for slot in slots
    }
    rows = [
        (slot.prompt, slot.file, f"{len(slot.tokens)} tokens", size((folder / slot.file).stat().st_size))
        for slot in slots
    ]
    tried = None if ran is None else f"xllamacpp {version()}"
    check = f"restored and tried in {tried}: each had its effect" if tried else NOT_TRIED
    lines = [f"{folder}: {len(slots)} for llama.cpp's slots", table(rows), check]
    return {"slots": entries, "tried": tried}, lines


def _state(
    model: str, gguf: Path | None, state: Path | None, slots: int, cache_type: Any
) -> tuple[bytes, Engine | None]:
    """Return a state that the engine saved: the given one, or one of a GGUF file (default: embedded model).

    The engine is returned too; it is None where it is the user's own.
    """
    from .._system.files import check_pulled
    from ..artifacts.interop.llama_cpp.engine import Engine
    from ..errors import SoftPromptError
    from ..lm import smollm2

    if state is not None:
        if not state.is_file():
            raise SoftPromptError(f"no file {state}", fix="check the path given as --state")
        check_pulled(state)
        return state.read_bytes(), None
    if gguf is None and model == "smollm2":
        gguf = smollm2.gguf_path()
    if gguf is None:
        raise SoftPromptError(
            "neither --gguf nor --state was given",
            why="state files differ by version, cache and model, so one that llama.cpp saved is filled in",
            fix="give --gguf FILE (the model; needs xllamacpp), or --state FILE (a slot that it saved)",
        )
    ran = Engine(gguf, cache_type, slots)
    return ran.saved_state(), ran
