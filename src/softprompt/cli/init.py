"""`softprompt init`: a first recipe, and a few rows to replace."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import SoftPromptError
from .output import Json, Reply, table

STARTERS = Path(__file__).parent / "starters"


class Task(str, Enum):
    """What a starter is for."""

    classification = "classification"
    generation = "generation"
    choice = "choice"


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where to write; made if it is not there.")
    ] = Path("."),
    task: Annotated[Task, typer.Option("--task", help="What the prompt should do.")] = Task.classification,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    json: Json = False,
) -> Reply:
    """Write a first recipe and a few rows.

    \b
    Example:
      softprompt init mood
      softprompt init summaries --task generation
    """
    from ..files import write_text

    files = {
        folder / "recipe.yaml": STARTERS / f"{task.value}.yaml",
        folder / "data" / "train.jsonl": STARTERS / f"{task.value}.jsonl",
    }
    there = [str(path) for path in files if path.exists()]
    if there and not force:
        raise SoftPromptError(
            f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} there already",
            why="nothing is replaced unasked",
            fix="name another folder (softprompt init FOLDER), or add --force",
        )
    for path, source in files.items():
        write_text(path, source.read_text(encoding="utf-8"))
    recipe, data = files
    command = f"softprompt check {shlex.quote(str(recipe))}"
    written = [(str(recipe), "the recipe: what is tuned, on what, and how")]
    written += [(str(data), "a few example rows: put yours in their place")]
    how = f"Each line of {data.name} is one row, a JSON object. Then type:\n  {command}"
    text = f"wrote\n{table(written)}\n\n{how}"
    return Reply({"recipe": str(recipe), "data": str(data), "task": task.value, "next": command}, text)
