"""`softprompt init` writes a first recipe, and a few rows to replace."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import SoftPromptError
from .output import Json, Reply, table

STARTERS = Path(__file__).parent / "starters"


class StarterTask(str, Enum):
    """The task that the example rows are for."""

    classification = "classification"
    generation = "generation"
    choice = "choice"
    embedding = "embedding"


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where to write; created if it is missing.")
    ] = Path("."),
    task: Annotated[
        StarterTask, typer.Option("--task", help="What the prompt should do.")
    ] = StarterTask.classification,
    rows: Annotated[
        str | None, typer.Option("--rows", metavar="FILE", help="Write a recipe for these rows.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    json: Json = False,
) -> Reply:
    """Write a first recipe and a few rows.

    \b
    Example:
      softprompt init mood
      softprompt init summaries --task generation
      softprompt init search --task embedding
      softprompt init --rows data.csv
    """
    from .._system.files import write_text

    if rows is not None:
        return _of_rows(rows, folder, force)
    files = {
        folder / "recipe.yaml": STARTERS / f"{task.value}.yaml",
        folder / "data" / "train.jsonl": STARTERS / f"{task.value}.jsonl",
    }
    _check_room(files, force)
    for path, source in files.items():
        write_text(path, source.read_text(encoding="utf-8"))
    recipe, data = files
    command = f"softprompt check {shlex.quote(str(recipe))}"
    written = [(str(recipe), "the recipe: what is tuned, on what, and how")]
    written += [(str(data), "a few example rows: put yours in their place")]
    usage = f"Each line of {data.name} is one row, a JSON object. Then run:\n  {command}"
    text = f"wrote\n{table(written)}\n\n{usage}"
    return Reply({"recipe": str(recipe), "data": str(data), "task": task.value, "next": command}, text)


def _of_rows(rows: str, folder: Path, force: bool) -> Reply:
    from .._system.files import write_text
    from ..recommend.starter_recipe import recipe_for, text_of

    path = folder / "recipe.yaml"
    _check_room([path], force)
    recipe, guessed = recipe_for(rows, folder)
    write_text(path, text_of(recipe, path))
    command = f"softprompt check {shlex.quote(str(path))}"
    lines = [("task", recipe["task"]["kind"]), *guessed.lines()]
    text = f"wrote {path}; inferred from the rows; change it there:\n{table(lines)}\n\nnext:\n  {command}"
    return Reply({"recipe": str(path), "data": rows, "task": recipe["task"]["kind"], "next": command}, text)


def _check_room(files: Iterable[Path], force: bool) -> None:
    existing = [str(path) for path in files if path.exists()]
    if existing and not force:
        raise SoftPromptError(
            f"{' and '.join(existing)} {'exists' if len(existing) == 1 else 'exist'} already",
            why="files are replaced only with --force",
            fix="name another folder (softprompt init FOLDER), or add --force",
        )
