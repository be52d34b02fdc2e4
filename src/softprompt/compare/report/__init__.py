"""Writes one offline page and one Markdown file about a comparison, from the files in its folder alone.

    read (files to dataclasses) ─► aggregate, verdict ─► sections (words, tables, figures) ─► page, Markdown

The page and the Markdown file are two renderings of the same sections, so their numbers are the same. Nothing
here imports what trains, and nothing is computed but means over seeds.
"""

from __future__ import annotations

from pathlib import Path


def write(folder: Path) -> Path:
    """Write `report.html` and `report.md` into a comparison's folder; the path of the page.

    Raises SoftPromptError where the folder holds no comparison, or one that cannot be read.
    """
    from ..._system.files import write_text
    from ...page import markdown
    from . import page, read
    from .sections import document

    report = document(read.comparison(Path(folder)))
    write_text(Path(folder) / "report.md", markdown.render(report))
    path = Path(folder) / "report.html"
    write_text(path, page.render(report))
    return path
