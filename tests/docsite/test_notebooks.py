"""The tutorials' notebooks are executed on a tiny model, and compared with those that are kept.

All of them run in one kernel, because most of its processor time is the import of torch. `%%bash` cells are
read by the same parser as on the command line, in the kernel itself, for the same reason. Numbers of a tiny
random model mean nothing: only what kind of output each cell has is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docsite.blocks import parts
from docsite.outputs import LINE, with_outputs
from tests.conftest import tiny_model, tiny_tokenizer

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

from docsite import notebooks  # noqa: E402

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "docs/tutorials").glob("*.md"))
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
#: Replaced in the pages, so that a run is short: pattern and replacement.
SHORT = {r'"budget": "40s"': '"budget": "1s"', r"\b(steps|max_new_tokens)=\d+": r"\1=2"}
#: Run in the kernel ahead of each notebook.
SETUP = """
def _begin():
    import shlex
    shell = get_ipython()
    for name in {*shell.user_ns} - {*shell.user_ns_hidden} - {"_begin"}:
        if not name.startswith("__"):
            del shell.user_ns[name]  # what the notebook before has left
    from matplotlib import pyplot
    from softprompt import methods
    from softprompt.cli import main
    from softprompt.compare import experiment
    from softprompt.compare.running.executors import Serial

    pyplot.close("all")
    experiment.executor = lambda kind, workers, threads: Serial()  # no processes, which import torch
    methods.METHODS.pop("offset-prompt", None)

    def bash(line, cell):
        for command in cell.splitlines():
            program, *words = shlex.split(command, comments=True)
            if words[0] in ("check", "tune"):
                words += ["dtype=float32", "train.steps=2", "max_new_tokens=2"]
            assert program == "softprompt" and main(words) == 0, command

    shell.register_magic_function(bash, "cell", "bash")
_begin()
"""


def page(name: str) -> str:
    return (ROOT / f"docs/tutorials/{name}.md").read_text(encoding="utf-8")


def kept(name: str) -> Any:
    return nbformat.read(ROOT / f"docs/tutorials/{name}.ipynb", as_version=4)


def code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> list[tuple[str, ...]]:
    """Return what each output of a cell is: text that was printed, or a value in these forms."""
    return sorted({tuple(sorted(output.get("data", {"printed": ""}))) for output in cell.outputs})


@pytest.mark.parametrize("name", NAMES)
def test_a_kept_notebook_is_that_of_its_page(name):
    book = kept(name)
    nbformat.validate(book)
    expected = notebooks.cells(page(name), book.metadata["softprompt"])
    shown = [(cell.id, cell.cell_type, cell.source) for cell in book.cells]
    assert shown == [(cell.id, cell.cell_type, cell.source) for cell in expected], (
        f"make notebooks NOTEBOOKS={name}"
    )
    assert [cell.execution_count for cell in code(book)] == list(range(1, len(code(book)) + 1))
    assert any(cell.outputs for cell in code(book))
    assert "\n## What next\n" in f"\n{book.cells[-1].source}\n"
    assert LINE.search(page(name))["name"] == f"{name}.ipynb"


@pytest.mark.parametrize("name", NAMES)
def test_kept_outputs_name_no_place_of_the_machine_that_made_them(name):
    text = (ROOT / f"docs/tutorials/{name}.ipynb").read_text(encoding="utf-8")
    assert not re.findall(r"(?<![\w.])/(?:tmp|home|root|work|usr|opt|Users)\b[^\s\"]*", text)
    assert '"output_type": "error"' not in text


def test_a_colour_that_two_messages_share_is_not_kept():
    from nbformat.v4 import new_output

    texts = ["a\x1b[2", "m b\x1b[0m"]
    (output,) = notebooks._kept([new_output("stream", name="stdout", text=text) for text in texts])
    assert output.text == "a b"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> Iterator[Any]:
    """A kernel in which the embedded model is a tiny one, which has a chat template."""
    cache = tmp_path_factory.mktemp("cache")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(cache / "smollm2-135m-instruct-1")
    tiny_model("llama", max_position_embeddings=1024).save_pretrained(cache / "smollm2-135m-instruct-1")
    with notebooks.kernel(SOFTPROMPT_CACHE=str(cache), OMP_NUM_THREADS="1") as manager:
        yield manager


@pytest.mark.process
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, kernel, tmp_path):
    text = page(name)
    for long, short in SHORT.items():
        text = re.sub(long, short, text)
    book = notebooks.notebook(text, kept(name).metadata["softprompt"])
    notebooks.execute(book, tmp_path, kernel, SETUP)
    assert [kinds(cell) for cell in code(book)] == [kinds(cell) for cell in code(kept(name))]
    assert any(tmp_path.rglob("softprompt.json"))


def test_outputs_are_shown_behind_their_blocks(tmp_path):
    source = (
        "# T\n\nThis page is also [a notebook](t.ipynb).\n\n```python\nx\n```\n\nwords\n\n```bash\ny\n```\n"
    )
    facts = {"model": "M", "cores": 2, "cpu": "C", "date": "2026-01-01"}
    book = notebooks.notebook(source, facts)
    first, second = code(book)
    first.outputs = [nbformat.v4.new_output("stream", text="```\n<b>")]
    png = nbformat.v4.new_output("display_data", {"image/png": "aGk=", "text/plain": "Figure"})
    table = nbformat.v4.new_output("execute_result", {"text/html": "<p>t</p>", "text/plain": "t"})
    second.outputs = [table, png]
    nbformat.write(book, tmp_path / "t.ipynb")
    shown, pictures = with_outputs(source, tmp_path / "t.ipynb")
    assert pictures == {"t-1.png": b"hi"}
    assert "The outputs are of M on 2 cores (C), 2026-01-01." in shown.split("```python")[0]
    between = shown.split("```python\nx\n```")[1].split("words")[0]
    assert between.strip().splitlines() == ["````{ .text .output }", "```", "<b>", "````"]
    behind = shown.split("```bash\ny\n```")[1]
    assert behind.index("<p>t</p>") < behind.index('src="t-1.png"') and "Figure" not in behind


def test_a_page_is_split_where_it_is_run():
    source = (
        "# T\n\n<!-- not run: why -->\n```bash\na\n```\n\n<!-- file: r.csv -->\n```csv\nb\n```\n\n"
        "```python\nc\n```\n\nend\n"
    )
    every = [(part.kind, part.source, part.name) for part in parts(source)]
    words = "# T\n\n<!-- not run: why -->\n```bash\na\n```"
    assert every == [
        ("markdown", words, ""), ("file", "b\n", "r.csv"), ("python", "c\n", ""), ("markdown", "end", "")
    ]  # fmt: skip
    assert [source[: part.end][-4:] for part in parts(source)][1:3] == ["\n```", "\n```"]
