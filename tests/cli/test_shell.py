"""Several commands in one process."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from softprompt._system.quiet import VERBOSE
from softprompt.cli import shell


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def piped(run, monkeypatch):
    """`piped(lines, …)`: the result of a shell that reads these lines."""

    def call(*lines, arguments=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return run("shell", *arguments)

    return call


def test_lines_are_commands(piped, run):
    version, methods = run("--version").out, run("methods").out
    output = piped("--version", "", "  # a comment", "softprompt methods", "exit", "--version")
    assert output.out == version + methods and output.code == 0 and output.err == ""


def test_the_exit_code_is_that_of_the_last_command(piped):
    assert piped("inspect nothing-here", "--version").code == 0
    assert piped("--version", "inspect nothing-here").code == 1
    assert piped("--version", "tune --nonsense").code == 2
    assert piped().code == 0
    output = piped("methods", "tune --nonsense", "inspect nothing-here", arguments=["--json"])
    assert json.loads(output.out) == {"commands": 3, "failed": 2} and output.code == 1


def test_quotations(piped):
    output = piped("inspect 'nothing here'", "inspect 'nothing", "--version")
    assert "no tuned prompt at nothing here" in output.err and "a quotation is not closed" in output.err
    assert output.out.startswith("softprompt ") and output.code == 0


def test_a_shell_in_a_shell(piped):
    output = piped("shell")
    assert output.code == 1 and "this is the shell already" in output.err


def test_a_fault_of_ours_does_not_end_it(piped, monkeypatch):
    def fault(words):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("softprompt.cli.main", fault)
    monkeypatch.setattr(sys, "stdin", io.StringIO("methods\nmethods\n"))
    assert shell.shell().data == {"commands": 2, "failed": 2}


def test_verbose_is_of_one_command(piped, monkeypatch):
    seen = []
    monkeypatch.setattr("softprompt.cli.methods.table", lambda rows: seen.append(os.environ[VERBOSE]) or "")
    assert piped("methods -v", "methods").code == 0
    assert seen[0] == "1" and seen[-1] == "0"


def test_a_terminal_is_asked(run, monkeypatch, capsys):
    """Libraries are imported first, Ctrl-C drops a line, and Ctrl-D ends the shell."""
    answers = iter(["--version", KeyboardInterrupt, EOFError])

    def ask(prompt):
        assert prompt == shell.PROMPT and "transformers.modeling_utils" in sys.modules
        answer = next(answers)
        if isinstance(answer, str):
            return answer
        raise answer

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr(sys, "stdin", Terminal())
    output = run("shell")
    assert output.code == 0 and output.out.startswith("softprompt ") and next(answers, None) is None


def test_names_and_files_are_completed(monkeypatch, tmp_path):
    readline = pytest.importorskip("readline")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "recipes").mkdir()

    def completions(line):
        begin = max(line.rfind(" "), line.rfind("=")) + 1
        monkeypatch.setattr(readline, "get_line_buffer", lambda: line)
        monkeypatch.setattr(readline, "get_begidx", lambda: begin)
        found, word = [], line[begin:]
        while (text := shell._complete(word, len(found))) is not None:
            found.append(text)
        return found

    assert completions("exp") == ["export"] and "tune" in completions("")
    assert completions("tune rec") == ["recipe.yaml", "recipes/"]
    assert completions("tune data.train=recipe.") == ["recipe.yaml"]
    assert completions("tune nothing") == []
