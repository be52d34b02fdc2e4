"""No library's warnings or loading bars in what commands and Python calls write; `-v` brings them back.

These run as other processes: what a library prints on import is printed once in a process, and in this
one everything is shown (tests/conftest.py).
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from softprompt._system import quiet
from softprompt.cli.app import app

pytestmark = pytest.mark.process
NOISE = re.compile(
    r"warning|deprecat|it/s\]|\d%\||failed to load|site-packages|[WIE]\d{4} |\[I |\[transformers\]|optuna",
    re.I,
)
COMMAND = [sys.executable, "-m", "softprompt"]
# What a library says through each way that it has; at last, what is left of ours once a call has ended.
PYTHON = """
import json, logging, sys, warnings
import softprompt
loggers = logging.root.manager.loggerDict
levels = lambda: {name: one.level for name, one in loggers.items() if isinstance(one, logging.Logger)}
lm = softprompt.load(sys.argv[1])
handle, before, filters = logging.Logger.handle, levels(), list(warnings.filters)
lm = softprompt.load(sys.argv[1])
rows = [{"input": word, "target": "ab"[i % 2]} for i, word in enumerate("a bc def gh i jk".split() * 3)]
tuned = softprompt.tune(lm, "prompt-tuning", rows, output=sys.argv[2], steps=1, batch_size=2)
tuned.generate("a", max_new_tokens=2, max_length=30, top_k=3, temperature=0.5)
after = levels()
assert logging.Logger.handle is handle and warnings.filters == filters
assert {name: after[name] for name in before} == before
from transformers.utils import logging as switch
assert switch.is_progress_bar_enabled()
lm.model.generate(lm.tokenizer("a", return_tensors="pt").input_ids, max_new_tokens=1, temperature=0.5)
"""


def environment(**more: str) -> dict[str, str]:
    """As a person's shell has it: nothing asks a library for silence, or to say things twice."""
    asked = {quiet.VERBOSE, "TOKENIZERS_PARALLELISM", "CI", *quiet.ENVIRONMENT}  # transformers reads CI
    return {name: value for name, value in os.environ.items() if name not in asked} | more


def in_a_pipe(command: list, **more: str) -> tuple[int, str, str]:
    done = subprocess.run(list(map(str, command)), env=environment(**more), capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def in_a_terminal(command: list, **more: str) -> tuple[int, str]:
    """The exit code, and all that a terminal was sent."""
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(list(map(str, command)), env=environment(**more), **streams)
    os.close(theirs)
    output = b""
    while True:
        try:
            some = os.read(ours, 4096)
        except OSError:  # the other end was closed
            break
        if not some:
            break
        output += some
    os.close(ours)
    return process.wait(), output.decode()


def test_every_command_can_be_verbose():
    import typer

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) > 15
    for name, command in commands.items():
        flags = {flag for option in command.params for flag in option.opts}
        assert {"-v", "--verbose"} <= flags, name


def test_a_command_in_a_pipe(tuned, model_folder):
    code, _, output = in_a_pipe([*COMMAND, "generate", tuned, "hello"])
    assert (code, output) == (0, f"loading {model_folder} …\n")
    code, _, output = in_a_pipe([*COMMAND, "generate", tuned, "hello", "-v"])
    assert code == 0 and f"loading {model_folder} …\n" in output and "Loading weights" in output


def test_a_command_in_a_terminal(recipe):
    code, output = in_a_terminal([*COMMAND, "tune", recipe, "base=lora", "method.name=prefix-tuning"])
    assert code == 0 and "softprompt eval" in output
    assert not NOISE.search(output), output


def test_the_workers_of_a_comparison(recipe, tmp_path):
    settings = ["methods=[lora]", "rates=[1e-2,1e-3]", "seeds=1", "steps=1", "control=false", "serving=false"]
    asked = [*COMMAND, "compare", recipe, "--workers", "2", "--output", tmp_path / "c", *settings]
    code, out, output = in_a_pipe(asked)
    assert code == 0 and "trials" in output
    assert not NOISE.search(output), output
    assert not NOISE.search(out.replace("warnings among the findings", "")), out


@pytest.mark.parametrize("look", [in_a_pipe, in_a_terminal])
def test_calls_from_python(model_folder, tmp_path, look):
    code, *output = look([sys.executable, "-c", PYTHON, model_folder, tmp_path / "out"])
    assert code == 0, output
    # the last line called transformers itself, which is not ours to silence
    assert len(re.findall("generation flags", "".join(output))) == 1, output
    lines = [
        line for line in "".join(output).splitlines() if "flags" not in line and "max_length" not in line
    ]
    assert not NOISE.search("\n".join(lines)), output


@pytest.mark.real
def test_the_embedded_model_is_converted_and_its_file_loaded(tmp_path):
    code, out, output = in_a_pipe(
        [sys.executable, "-m", "softprompt.lm.smollm2"], SOFTPROMPT_CACHE=str(tmp_path)
    )
    assert (code, out) == (0, "embedded model ready: smollm2-135m-instruct-1\n")
    # a slow machine also prints how long it has taken so far, and nothing else
    assert all(line.startswith("  converting the embedded model  ") for line in output.splitlines()), output
    code = (
        "import softprompt.lm.smollm2 as s, softprompt; print(softprompt.load(str(s.gguf_path())).name[-5:])"
    )
    assert in_a_terminal([sys.executable, "-c", code]) == (0, ".gguf\r\n")
