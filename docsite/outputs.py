"""A tutorial's page on the site has the outputs of its notebook, each behind the block that it belongs to."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .blocks import parts

#: The line of a tutorial that names its notebook; its own words are on the page alone.
LINE = re.compile(r"^This page is also \[a notebook\]\((?P<name>[\w-]+\.ipynb)\)[^\n]*$", re.M)


def about(facts: Mapping[str, Any]) -> str:
    """Say on what the outputs were made."""
    machine = f"{facts['cores']} cores" + (f" ({facts['cpu']})" if facts["cpu"] else "")
    return (
        f"The outputs are of {facts['model']} on {machine}, {facts['date']}. They differ a little "
        "on another machine, where sums are rounded in another order. Times depend on its other work."
    )


def with_outputs(page: str, notebook: Path) -> tuple[str, dict[str, bytes]]:
    """Return a page with outputs behind its blocks, and the pictures among them by their file names."""
    book = json.loads(notebook.read_text(encoding="utf-8"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    blocks = [part for part in parts(page) if part.kind != "markdown"]
    pictures: dict[str, bytes] = {}
    shown = ["".join(_shown(each, notebook.stem, pictures) for each in cell["outputs"]) for cell in code]
    for part, text in reversed(list(zip(blocks, shown, strict=True))):
        if part.kind == "file":  # that it was written
            continue
        page = page[: part.end] + text + page[part.end :]
    facts = book["metadata"]["softprompt"]
    return LINE.sub(lambda line: f"{line[0]} {about(facts)}", page), pictures


def _shown(output: Mapping[str, Any], stem: str, pictures: dict[str, bytes]) -> str:
    """Return an output as Markdown. Of a table the HTML is shown, of a plot the picture."""
    if output["output_type"] == "stream":
        return _fence(_joined(output["text"]))
    data = output["data"]
    if "image/png" in data:
        name = f"{stem}-{len(pictures) + 1}.png"
        pictures[name] = base64.b64decode(_joined(data["image/png"]))
        width = output.get("metadata", {}).get("image/png", {}).get("width")
        size = f' width="{width}"' if width else ""
        picture = f'<img class="plot" src="{name}"{size} alt="The plot that the code above draws">'
        return f'\n\n<div class="output">{picture}</div>\n'
    if "text/html" in data:
        return f'\n\n<div class="output">\n{_joined(data["text/html"])}\n</div>\n'
    return _fence(_joined(data["text/plain"]))


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def _fence(text: str) -> str:
    """Return text in a fence that is longer than any in it."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"\n\n{ticks}{{ .text .output }}\n{text.rstrip()}\n{ticks}\n" if text.strip() else ""
