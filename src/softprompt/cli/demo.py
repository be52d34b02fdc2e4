"""`softprompt demo` runs the demo, which is an example that is installed too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import Json, Reply


def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]", help="Where results are written; default: runs/demo.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> Reply:
    """Run a demo on real data, in ten minutes.

    It tunes prompts and prefixes on the embedded model and compares them with the plain model.

    \b
    Example:
      softprompt demo
    """
    from softprompt_demo.run import main

    return Reply(None, code=main(json, folder))
