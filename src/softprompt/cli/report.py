"""`softprompt report` writes a comparison as one offline page, and as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import Json, Reply, open_in_browser, size

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The folder that compare wrote.", show_default=False)
]


def report(
    folder: Folder,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: Json = False,
) -> Reply:
    """Write the report of a comparison from its files.

    report.html is one file that needs no network; report.md has the same numbers.

    \b
    Example:
      softprompt report runs/compare --open
    """
    from ..compare import report as reports

    page = reports.write(folder)
    if open_page:
        open_in_browser(page)
    markdown = page.with_suffix(".md")
    data = {"page": str(page), "markdown": str(markdown), "bytes": page.stat().st_size}
    return Reply(data, None if json else f"{page} ({size(data['bytes'])})\n{markdown}")
