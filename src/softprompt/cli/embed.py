"""`softprompt embed` writes the vectors of a text, a file of texts, or standard input."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SoftPromptError
from .generate import read_inputs
from .opening import (
    ArtifactFolder,
    DeviceMap,
    ModelName,
    OtherBase,
    Plain,
    PromptName,
    TrustCode,
    check_prompt,
    inputs_of,
    open_artifact,
)
from .output import Json, Reply, log

if TYPE_CHECKING:
    import numpy as np

FORMS = (".npy", ".jsonl")


def embed(
    artifact: ArtifactFolder,
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="The text.", show_default=False)
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="Rows (.jsonl, .csv, …), a line each (.txt), or - ."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write .npy (an array) or .jsonl (a row a text)."),
    ] = None,
    document: Annotated[
        bool, typer.Option("--document", help="The texts are documents, and no queries.")
    ] = False,
    prompt: PromptName = None,
    plain: Plain = False,
    model: ModelName = None,
    other_base: OtherBase = False,
    trust_remote_code: TrustCode = False,
    device_map: DeviceMap = None,
    json: Json = False,
) -> Reply:
    """Write the vectors of a text, or of a file of texts.

    Vectors have the length 1, so that a product of two is their cosine. Without --output they are printed,
    a JSON object a line.

    \b
    Example:
      softprompt embed runs/embedding "where is my card?"
      softprompt embed runs/embedding --file texts.txt --output vectors.npy
      softprompt embed runs/embedding --file articles.jsonl --document --output vectors.jsonl
    """
    if (text is None) == (file is None):
        raise typer.BadParameter("give one TEXT, or --file FILE (--file - reads standard input)")
    if output is not None and output.suffix not in FORMS:
        raise SoftPromptError(
            f"--output {output} is no form of vectors",
            why=f"its name ends with '{output.suffix}'",
            fix=f"end it with {' or '.join(FORMS)}",
        )
    from ..artifacts import artifact as artifacts
    from ..config.load import recipe_from_dict
    from ..tuned import check_vectors

    opened = artifacts.load(artifact)
    check_vectors(recipe_from_dict(opened.manifest["recipe"]))
    rows: list[Any] = [text] if file is None else list(read_inputs(file))
    if blank := [number for number, row in enumerate(rows, 1) if row is None]:
        raise SoftPromptError(
            f"{file}: line {blank[0]} is blank, and an empty text has no vector",
            why=f"{len(blank)} of {len(rows)} lines are blank",
            fix="take the blank lines out",
        )
    check_prompt(opened, rows, prompt)
    tuned = open_artifact(opened, model, other_base, plain, trust=trust_remote_code, device_map=device_map)
    inputs, prompt = inputs_of(rows, tuned, prompt)
    vectors = tuned.encode(inputs, prompt=prompt, document=document)
    if output is not None:
        _write(output, vectors)
        shape = " x ".join(map(str, vectors.shape))
        log(f"wrote {shape} numbers to {output}")
        return Reply({"artifact": str(tuned.artifact), "output": str(output), "shape": list(vectors.shape)})
    if json:
        return Reply({"artifact": str(tuned.artifact), "embeddings": vectors.tolist()})
    return Reply({}, "\n".join(_lines(vectors)))


def _lines(vectors: np.ndarray) -> list[str]:
    return [
        jsonlib.dumps({"index": index, "embedding": vector}) for index, vector in enumerate(vectors.tolist())
    ]


def _write(path: Path, vectors: np.ndarray) -> None:
    """Write the vectors; the file appears when it is complete."""
    import numpy as np

    from .._system.files import replacing, write_text

    if path.suffix == ".jsonl":
        write_text(path, "\n".join(_lines(vectors)) + "\n")
        return
    with replacing(path) as working, working.open("wb") as file:
        np.save(file, vectors)
