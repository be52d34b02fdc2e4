"""The Python calls take settings by name and speak Python; models and scripts that cannot work are named."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.conftest import tiny_model

import softprompt
from softprompt._system.notes import note
from softprompt.cli import main
from softprompt.errors import SoftPromptError
from softprompt.methods.keyword_arguments import in_python, sections, worded

pytestmark = pytest.mark.whole

ROWS = [{"input": f"row {i}", "target": ("good", "bad")[i % 2]} for i in range(8)]


def test_settings_are_taken_by_name(llama, tmp_path):
    tuned = softprompt.tune(
        llama, "prompt-tuning", ROWS, output=tmp_path / "out", length=3, placement="after", steps=2,
        max_new_tokens=7, max_input_tokens=5, lr=1e-2,
    )  # fmt: skip
    recipe = tuned.recipe
    assert recipe.method.options() == {"length": 3, "placement": "after"}
    assert (recipe.train.steps, recipe.train.lr) == (2, 1e-2)
    assert (recipe.task.max_new_tokens, recipe.data.max_input_tokens) == (7, 5)
    assert sections({"base": "lora", "rank": 2, "chat": True}, "tune")["template"] == {"chat": True}


def test_an_unknown_setting_names_the_nearest(llama, tmp_path):
    for given, meant in (("lenght", "length"), ("step", "steps"), ("max_new_token", "max_new_tokens")):
        with pytest.raises(
            SoftPromptError, match=f"unknown argument of tune '{given}'; did you mean '{meant}'"
        ):
            softprompt.tune(llama, "prompt-tuning", ROWS, output=tmp_path / "out", **{given: 4})


def test_errors_are_in_pythons_words(llama, tmp_path, capsys):
    def tune(**how):
        return softprompt.tune(
            llama, "prompt-tuning", ROWS, output=tmp_path / "out", length=2, steps=1, **how
        )

    tune()
    with pytest.raises(SoftPromptError) as caught:
        tune(lr=1e-4)
    assert "overwrite=True" in caught.value.fix and "--overwrite" not in str(caught.value)
    with pytest.raises(SoftPromptError) as caught:
        softprompt.tune(llama, "prompt-tuning", ROWS, output=tmp_path / "o", length=0)
    assert "method." not in str(caught.value)
    tune(lr=1e-4, restart=True, overwrite=True)
    assert main(["generate", str(tmp_path / "out"), "a", "--prompt", "b", "--model", "x/y"]) == 1


@pytest.mark.parametrize(
    ("recipe", "python"),
    [
        ("data.max_input_tokens=66 or --prompt 'gym coach'", "max_input_tokens=66 or prompt='gym coach'"),
        ("task.kind=generation, or template.input", "task='generation', or template[\"input\"]"),
        ("data.dev=FILE, or data.dev_fraction=0.2", "dev=FILE, or dev_fraction=0.2"),
        ("off (train.cache=off); --overwrite", "off (cache='off'); overwrite=True"),
        ("task.head=true. template.chat=false", "head=True. chat=False"),
        ("base.lr=1e-4, train.lr=1e-3.", 'base={"lr": 1e-4}, lr=1e-3.'),
        ("base.rank=4, method.rank=2", 'rank=4, options={"rank": 2}'),
        # what only looks like a key
        ("no /home/train.jsonl, data/dev.csv, train.csv", "no /home/train.jsonl, data/dev.csv, train.csv"),
        ("template.input='{{ question }}'", "input='{{ question }}'"),
    ],
)
def test_words_of_a_recipe_as_arguments(recipe, python):
    assert worded(recipe) == python
    assert worded(python) == python


def test_a_file_that_is_not_there_is_called_by_its_name(llama, tmp_path):
    with pytest.raises(SoftPromptError) as caught:
        softprompt.tune(llama, "prompt-tuning", str(tmp_path / "train.jsonl"), output=tmp_path / "out")
    assert str(tmp_path / "train.jsonl") in str(caught.value)


def test_what_is_said_meanwhile_is_in_pythons_words(llama, tmp_path, capsys):
    how = {"length": 2, "steps": 1, "output": tmp_path / "out"}
    softprompt.tune(llama, "prompt-tuning", ROWS, progress=True, **how)
    message = capsys.readouterr().err
    assert "dev=FILE, or a larger dev_fraction" in message and "data." not in message


def test_a_note_to_a_logger_is_in_pythons_words(monkeypatch, caplog):
    monkeypatch.setattr("softprompt._system.notes._shown", set())
    with caplog.at_level("WARNING", "softprompt._system.notes"):
        in_python(note)("longer (data.max_input_tokens)")
        note("shorter (data.max_input_tokens)")
    assert caplog.messages == [
        "note: longer (max_input_tokens)",
        "note: shorter (data.max_input_tokens)",
    ]


def test_what_is_no_base_model_is_refused_with_what_works(tmp_path):
    with pytest.raises(SoftPromptError, match=r"softprompt.load\(model, tokenizer\)"):
        softprompt.tune(tiny_model("llama"), "prompt-tuning", ROWS, output=tmp_path / "out")
    with pytest.raises(SoftPromptError, match="lm is no base model"):
        softprompt.search(None, "prompt-tuning", ROWS, {"lr": [1e-2]}, output=tmp_path / "out")  # type: ignore
    with pytest.raises(SoftPromptError, match="needs a recipe"):
        softprompt.compare_methods(None)  # type: ignore


def test_what_the_shell_is_told_stays_the_shells(llama, tmp_path, model_folder, capsys):
    softprompt.tune(str(model_folder), "prompt-tuning", ROWS, output=tmp_path / "out", length=2, steps=1)
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "target": "b"}\n' * 3)
    (tmp_path / "r.yaml").write_text(f"model: {model_folder}\ndata: rows.jsonl\noutput: out\n")
    capsys.readouterr()
    assert main(["tune", str(tmp_path / "r.yaml")]) == 1
    message = capsys.readouterr().err
    assert "--overwrite" in message and "loading" not in message


# --- scripts, and processes that were forked ---

WORK = """
from concurrent.futures import ProcessPoolExecutor
from softprompt.compare.running import main_script

print("begun", flush=True)
def begin():
    with ProcessPoolExecutor(1, main_script.context()) as pool:
        print("made", pool.submit(max, 3, 4).result(), flush=True)
"""
GUARD = "if __name__ == '__main__':\n    "


@pytest.mark.parametrize(
    ("call", "runs"), [("begin()", 1), (GUARD + "begin()", 2), ("for _ in [1]:\n    begin()", 1)]
)
@pytest.mark.parametrize("through", ["file", "stdin"])
def test_a_script_needs_no_guard(call, runs, through, tmp_path):
    """Workers do not run an unguarded script again; a guarded one they import, as Python has it."""
    script = tmp_path / "script.py"
    script.write_text(WORK + call)
    given = {"args": [sys.executable, str(script)]}
    if through == "stdin":
        given, runs = {"args": [sys.executable, "-"], "input": WORK + call}, 1
    done = subprocess.run(**given, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "made 4" in done.stdout, done.stderr
    assert done.stdout.count("begun") == runs


FORKED = """
import multiprocessing, torch
from softprompt._system import threads
from softprompt.errors import SoftPromptError

torch.set_num_threads(3)
torch.randn(300, 300) @ torch.randn(300, 300)

def work(wanted):
    torch.randn(300, 300) @ torch.randn(300, 300)
    try:
        return threads.use(wanted)
    except SoftPromptError as error:
        return error.what

with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map_async(work, [None, 1, 2]).get(60))
print(torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_takes_one_thread():

    bare = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=100, env=bare
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "[1, 1, 'train.threads=2 is not possible in a process that was forked"
    ) and done.stdout.endswith("3\n")
