"""`python -m docsite.notebooks [NAME …]` makes the tutorials' notebooks: `make notebooks`.

A tutorial's page is the source of its notebook: text becomes cells of text, and a block that is run becomes
a cell of code. The notebook is executed on SmolLM2 and kept with its outputs, which the site shows too. One
whose code is unchanged keeps its outputs, unless it is named.
Progress and warnings (stderr) are not kept. tests/docsite/test_notebooks.py executes the same cells on a tiny
model, and fails where a notebook is older than its page.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import nbformat
from benchmarks.training.machine import processor
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.util import run_sync
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from .blocks import Part, parts
from .outputs import LINE, about

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = ROOT / "docs/tutorials"
SECONDS = 3600  # for one cell, at most: machines may be busy
#: A kernel asks for them, also of commands whose output is no terminal.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
#: Run in the kernel before the notebook, and not part of it: plots are sharp on every screen.
PLOTS = "%config InlineBackend.figure_formats = ['retina']"


def cells(page: str, facts: dict[str, Any]) -> list[NotebookNode]:
    """Return the cells of a page, without outputs. `facts` say where the outputs come from."""
    return [_cell(part, f"cell-{i}", facts) for i, part in enumerate(parts(page))]


def _cell(part: Part, id: str, facts: dict[str, Any]) -> NotebookNode:
    if part.kind == "markdown":
        return new_markdown_cell(LINE.sub(lambda _: about(facts), part.source), id=id)
    first = {"python": "", "bash": "%%bash\n", "file": f"%%writefile {part.name}\n"}[part.kind]
    return new_code_cell(first + part.source.rstrip("\n"), id=id)


def made_here() -> dict[str, Any]:
    """Return the model, the machine and the date of a notebook that is executed now."""
    return {
        "model": "SmolLM2-135M",
        "cores": os.cpu_count(),
        "cpu": processor(),
        "date": date.today().isoformat(),
    }


def notebook(page: str, facts: dict[str, Any]) -> NotebookNode:
    """Return a page as a notebook that has not been executed."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "softprompt": facts}
    return new_notebook(cells=cells(page, facts), metadata=metadata)


@contextlib.contextmanager
def kernel(**variables: str) -> Iterator[Any]:
    """Start a kernel with more variables in its environment; yield its manager.

    It is reached through files of this user, not through the network.
    """
    sockets = tempfile.mkdtemp()
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/k")
    run_sync(manager.start_kernel)(env={**os.environ, **variables})
    try:
        yield manager
    finally:
        run_sync(manager.shutdown_kernel)(now=True)
        shutil.rmtree(sockets)


def execute(book: NotebookNode, folder: Path, manager: Any, setup: str = "") -> NotebookNode:
    """Execute all cells in a folder, in the kernel of a manager; keep what a reader would see.

    `setup` is run before the first cell. Raises nbclient's CellExecutionError for a cell that fails.
    """
    client = NotebookClient(book, manager, timeout=SECONDS, startup_timeout=SECONDS, record_timing=False)
    book.cells.insert(0, new_code_cell(f"%cd -q {folder}\n{PLOTS}\n{setup}"))
    with client.setup_kernel():
        for index, cell in enumerate(book.cells):
            client.execute_cell(cell, index, store_history=index > 0)
        if client.kc is not None:
            client.kc.stop_channels()
    del book.cells[0]
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = _kept(cell.outputs)
    return book


def _kept(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return the outputs without stderr and colours, with what is printed in a row as one output."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
            continue
        if png := output.get("data", {}).get("image/png"):
            output.data["image/png"] = _smaller(png)
        kept.append(output)
    for output in kept:
        if output.output_type == "stream":  # a colour's mark may begin in one message and end in the next
            output.text = COLOURS.sub("", output.text).replace(str(Path.home()), "~")
    return kept


def _smaller(png: str) -> str:
    """Return a picture of 64 colours, which is a third of the size and looks the same for a plot."""
    from PIL import Image

    small = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def make(name: str, *, anew: bool) -> str:
    """Write a tutorial's notebook beside its page, and say what was done.

    It is executed on SmolLM2 where its code has changed, or `anew`; else it keeps its outputs.
    """
    page, path = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8"), TUTORIALS / f"{name}.ipynb"
    kept = nbformat.read(path, as_version=4) if path.exists() else None
    book = notebook(page, made_here() if kept is None else kept.metadata["softprompt"])
    if kept is not None and not anew and _code(kept) == _code(book):
        outputs = [(cell.execution_count, cell.outputs) for cell in kept.cells if cell.cell_type == "code"]
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.execution_count, cell.outputs = outputs.pop(0)
        nbformat.write(book, path)
        return f"{name}: the code is the same, so the outputs are too"
    book, started, folder = notebook(page, made_here()), time.perf_counter(), Path(tempfile.mkdtemp())
    try:
        with kernel() as manager:
            nbformat.write(execute(book, folder, manager), path)
    finally:
        shutil.rmtree(folder)
    return f"{name}: executed in {time.perf_counter() - started:.0f} s"


def _code(book: NotebookNode) -> list[str]:
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


if __name__ == "__main__":
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # for %%bash
    for name in sys.argv[1:] or sorted(path.stem for path in TUTORIALS.glob("*.md")):
        print(make(name, anew=bool(sys.argv[1:])), flush=True)
