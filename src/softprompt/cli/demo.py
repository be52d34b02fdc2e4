"""`softprompt demo`: the whole of it on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import Json, Reply


def demo(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Where the results go.", show_default=False)
    ] = None,
    json: Json = False,
) -> Reply:
    """Run all of it on real data, in ten minutes.

    Tunes prompts and prefixes on the embedded model and compares them with the plain one.

    \b
    Example:
      softprompt demo
    """
    from softprompt_demo.run import main

    return Reply(None, code=main(json, folder))
