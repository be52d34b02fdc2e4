"""The frame: help, version, usage, and how errors are printed."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import softprompt

COMMANDS = (
    *(
        "init",
        "choose",
        "check",
        "tune",
        "search",
        "compare",
        "eval",
        "distill",
        "generate",
        "embed",
        "inspect",
        "compose",
        "report",
    ),
    *("compile", "export", "import", "push", "methods", "models", "serve", "play", "demo"),
    *("shell", "doctor", "cache"),
)


def test_help_lists_every_command(run):
    output = run("--help")
    assert output.code == 0
    listed = output.out.split("Commands:")[1].split("\n")
    assert [line.split()[0] for line in listed if line.strip()] == list(COMMANDS)
    assert "..." not in output.out.split("Commands:")[1]  # no summary is cut short


@pytest.mark.parametrize("command", COMMANDS)
def test_command_help_has_an_example_and_json(run, command):
    output = run(command, "--help")
    assert output.code == 0 and "--json" in output.out
    assert f"  softprompt {command}" in output.out.split("Example:")[1]


@pytest.mark.process
def test_help_imports_nothing_heavy():
    code = (
        "import sys; from softprompt.cli import main; main(['tune', '--help'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_version(run):
    assert run("--version").out == f"softprompt {softprompt.__version__}\n"


def test_no_color_leaves_out_escape_codes(run, monkeypatch):
    from softprompt.cli import output

    styles = []
    monkeypatch.setattr(
        output.typer, "secho", lambda text, **style: styles.append((style["fg"], style["bold"]))
    )
    for value in ("1", ""):  # an empty variable counts as none: no-color.org
        monkeypatch.setenv("NO_COLOR", value)
        assert run("check", "no-such.yaml").code == 1
    assert styles == [(None, False), ("red", True)]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_a_shell(run, monkeypatch, shell):
    """The script that the shell reads, and what the command answers to a shell that asks."""
    shown = run("--show-completion", shell)
    assert shown.code == 0 and "_SOFTPROMPT_COMPLETE" in shown.out and f"complete_{shell}" in shown.out
    for name, value in {
        "_SOFTPROMPT_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "softprompt comp",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": "softprompt comp",
        "COMP_CWORD": "1",
    }.items():
        monkeypatch.setenv(name, value)
    output = run()
    assert output.code == 0 and {"compare", "compile", "compose"} <= set(re.findall(r"\w+", output.out))
    assert "tune" not in output.out.split()


def test_wrong_usage_is_2(run):
    for arguments in (["tun"], ["tune"], ["eval", "x"], ["check", "r.yaml", "--no-such"], ["generate", "x"]):
        output = run(*arguments)
        assert output.code == 2 and output.out == "" and "Traceback" not in output.err


def test_error_is_one_message_and_1(run, tmp_path):
    output = run("check", tmp_path / "recip.yaml")
    assert output.code == 1 and output.out == ""
    assert (
        output.err.startswith("error: no recipe at")
        and "\n  why: " in output.err
        and "\n  fix: " in output.err
    )
    error = run("check", tmp_path / "recip.yaml", "--json").json["error"]
    assert set(error) == {"what", "why", "fix"} and error["what"].startswith("no recipe at")


def test_methods_lists_the_registry(run):
    from softprompt.methods import METHODS

    output, found = run("methods"), run("methods", "--json").json["methods"]
    assert set(found) == set(METHODS)
    assert found["prefix-tuning"]["lr"] == METHODS["prefix-tuning"].lr
    assert found["prefix-tuning"]["options"]["placement"] == "after"
    assert all(f"{name}: " in output.out for name in METHODS) and "values_only=false" in output.out


def test_demo_passes_on_json_folder_and_code(run, monkeypatch, tmp_path):
    from softprompt_demo import run as demo

    def fake(as_json, folder):
        print('{"table": []}')
        return 3 if as_json and folder == tmp_path else 4

    monkeypatch.setattr(demo, "main", fake)
    output = run("demo", tmp_path, "--json")
    assert output.code == 3 and output.json == {"table": []}
