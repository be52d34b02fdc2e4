"""`softprompt report` writes a comparison or a distillation as one offline page, and as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SoftPromptError
from .output import Json, Reply, open_in_browser, size

Folder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="The folder of compare or distill.", show_default=False),
]


def report(
    folder: Folder,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print the main table for a paper.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the main table as CSV.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the table to this file.")
    ] = None,
    json: Json = False,
) -> Reply:
    """Write the report of a comparison or a distillation.

    report.html is one file that needs no network; report.md has the same numbers. With --latex or --csv, the
    main table is printed instead: scores with intervals and significance marks, seen and unseen rows, costs.

    \b
    Example:
      softprompt report runs/compare --open
      softprompt report runs/sea --open
      softprompt report runs/compare --latex --output table.tex
    """
    from ..compare import report as reports
    from ..distillation import report as distillation

    if latex or csv or output is not None:
        return _table(folder, latex, csv, output, open_page)
    distilled = distillation.folder_of(folder)
    page = reports.write(folder) if distilled is None else distillation.write(distilled)
    if open_page:
        open_in_browser(page)
    markdown = page.with_suffix(".md")
    data = {"page": str(page), "markdown": str(markdown), "bytes": page.stat().st_size}
    return Reply(data, None if json else f"{page} ({size(data['bytes'])})\n{markdown}")


def _table(folder: Path, latex: bool, csv: bool, output: Path | None, open_page: bool) -> Reply:
    from .._system.files import write_text
    from ..compare.report import paper, read

    if latex == csv:
        raise SoftPromptError(
            "--latex and --csv are two tables" if latex else "--output needs a kind of table",
            why="one command writes one table",
            fix="use --latex or --csv",
        )
    if open_page:
        raise SoftPromptError("--open shows the page, not a table", fix="leave out --open")
    comparison = read.comparison(folder)
    text = paper.latex(comparison) if latex else paper.table(comparison)
    if output is None:
        return Reply({"latex" if latex else "csv": text}, text.rstrip("\n"))
    write_text(output, text)
    return Reply({"table": str(output), "bytes": len(text.encode())}, str(output))
