"""Every block of Python or shell on the pages is run by a test, or the page says why not.

A block that is not run has `<!-- not run: REASON -->` on the line above it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from docsite.blocks import BLOCK
from tests.conftest import tiny_model, tiny_tokenizer

from softprompt.cli import main
from softprompt.lm import loading, smollm2

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "

#: Pages whose Python blocks are run here, one after the other.
PYTHON = ["docs/api.md", "docs/start.md"]
#: Pages that are notebooks too: their blocks of both languages are run as cells, but those that are marked.
TUTORIALS = [page for page in PAGES if page.startswith("docs/tutorials/")]
#: Blocks of commands that are run here, in a folder with a recipe: page, and the number of the block in it.
COMMANDS = [("docs/start.md", 1), ("docs/concepts/before-and-after.md", 0), ("docs/concepts/plan.md", 0)]
COMMANDS += [("docs/commands.md", 0), ("docs/doctor.md", 0)]
#: Settings that make a run short.
SHORT = ["dtype=float32", "train.steps=2", "max_new_tokens=2"]
#: Blocks that another test runs: page, kind, the first of its blocks that the test runs, the last, the test.
ELSEWHERE = [
    ("README.md", "python", 0, 0, "tests/test_readme.py::test_the_python_example_runs"),
    ("README.md", "bash", 0, 3, "tests/test_readme.py::test_the_command_runs"),
    ("docs/base-models.md", "python", 0, 0, "tests/lm/test_any_base.py::test_the_page_runs"),
    ("docs/data.md", "python", 0, 0, "tests/data/test_row_objects.py::test_the_page_runs"),
    ("docs/embeddings.md", "python", 0, 1, "tests/model/test_embeddings_page.py::test_the_snippets_run"),
    ("docs/harness.md", "python", 0, 0, "tests/harness/test_run.py::test_the_page_runs"),
    ("docs/hub.md", "python", 0, 0, "tests/artifacts/hub/test_hub_page.py"),
    ("docs/many-devices.md", "bash", 0, 0, "tests/cli/test_devices.py::test_the_pages_snippet_runs"),
    ("docs/own-loop.md", "python", 0, 1, "tests/model/test_own_loop.py::test_the_snippets_run"),
    ("docs/own-method.md", "python", 0, 1, "tests/testing/test_own_package.py::test_the_page_runs"),
    ("docs/preferences.md", "python", 0, 0, "tests/training/test_preferences_page.py::test_the_snippet_runs"),
    (
        "docs/running.md",
        "python",
        0,
        0,
        "tests/test_readme.py",
    ),
    (
        "docs/operations.md",
        "bash",
        0,
        0,
        "tests/cli/test_serve_config.py::test_the_pages_server_reads_its_file_again",
    ),
    ("docs/tracking.md", "python", 0, 0, "tests/tracking/test_page.py::test_the_snippet_runs"),
    # what these clients' blocks are, and which are not run, is counted in test_documented.py
    ("docs/serving.md", "python", 0, 9, "tests/serve/clients/test_documented.py"),
    ("docs/serving.md", "bash", 0, 9, "tests/serve/clients/test_documented.py"),
]


def blocks(page: str, kind: str) -> list[re.Match[str]]:
    """The blocks of one language on a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [block for block in BLOCK.finditer(text) if block["kind"] == kind]


def run_by(page: str, kind: str, number: int) -> str | None:
    """Which test runs a block."""
    if page in TUTORIALS:
        return None if blocks(page, kind)[number]["reason"] else "tests/docsite/test_notebooks.py"
    if (kind == "python" and page in PYTHON) or ((page, number) in COMMANDS and kind == "bash"):
        return "tests/docsite/test_snippets.py"
    for name, language, first, last, test in ELSEWHERE:
        if (name, language) == (page, kind) and first <= number <= last:
            return test
    return None


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_the_page_says_why_not(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.findall(r"^ *```(?:python|py|bash|sh|shell|console|pycon)", text, re.M)
    assert len(fences) == sum(len(blocks(page, kind)) for kind in ("python", "bash")), (
        "python or bash, not indented"
    )
    for kind in ("python", "bash"):
        for number, block in enumerate(blocks(page, kind)):
            is_run, is_marked = run_by(page, kind, number) is not None, block["reason"] is not None
            assert is_run != is_marked, f"block {number} of {kind}: {block['text']}"


def test_the_tests_that_run_blocks_exist():
    for page, _, _, _, test in ELSEWHERE:
        file, _, function = test.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        if function:
            assert f"def {function}(" in text, test
        reads = [text, (ROOT / "tests/serve/clients/snippets.py").read_text(encoding="utf-8")]
        assert any(Path(page).name in each or page == "README.md" for each in reads), test


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_read_by_the_parser(page):
    """Also of blocks that are not run: the command exists, and so do its options."""
    from typer.main import get_command

    from softprompt.cli.app import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    for block in blocks(page, "bash"):
        for line in block["text"].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["softprompt"] or words[1].startswith("-"):
                continue
            assert words[1] in known, line
            options = {name for p in known[words[1]].params for name in [*p.opts, *p.secondary_opts]}
            used = {word.split("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
            assert used <= options | {"--help", "-h"}, (line, used - options)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The alias of the embedded model names a tiny one, which has a chat template."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_model("llama").save_pretrained(tmp_path / "model")
    monkeypatch.setitem(loading.ALIASES, "smollm2", lambda: tmp_path / "model")
    monkeypatch.setattr(smollm2, "folder", lambda: tmp_path / "model")
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PYTHON)
def test_the_python_of_a_page_runs(page, tiny):
    names: dict = {}
    every = blocks(page, "python")
    assert every
    for block in every:
        exec(block["text"], names)


def command(line: str, settings: list[str], capsys) -> None:
    """Run a command, which must succeed; one that reads a recipe gets the settings too."""
    program, *words = shlex.split(line, comments=True)
    is_of_recipe = words[0] in ("check", "tune") and "--help" not in words
    assert program == "softprompt"
    assert main([*words, *(settings if is_of_recipe else [])]) == 0, (line, capsys.readouterr().err)


@pytest.mark.slow
def test_the_commands_of_the_pages_run(tiny, capsys, monkeypatch):
    """The first block writes the recipe in whose folder the others are run."""
    for page, number in COMMANDS:
        # the last command of the page on the start reads the output
        place = [] if page == "docs/start.md" else [f"output=runs/{page}"]
        for line in blocks(page, "bash")[number]["text"].splitlines():
            command(line, [*place, *SHORT], capsys)
        monkeypatch.chdir(tiny / "my-task")
