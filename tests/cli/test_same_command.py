"""The same command resumes whatever is unfinished; another run's folder is refused with what differs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from softprompt._system.files import write_tensors
from softprompt.artifacts import artifact
from softprompt.training import checkpoint, checkpoint_file
from softprompt.training.checkpoint import FILE, PREVIOUS

from .conftest import make_project, write_rows

pytestmark = pytest.mark.whole

STEPS = ("steps=9", "eval_every=3")


class Killed(BaseException):
    """It acts as SIGKILL does: nothing is cleaned up."""


@pytest.fixture
def killed(monkeypatch):
    """`killed(place, name, number)`: the `number`th call of that function from now on ends the process."""

    def arm(place, name: str, number: int) -> None:
        real, calls = getattr(place, name), []

        def dies(*arguments, **named):
            calls.append(1)
            if len(calls) == number:
                raise Killed
            return real(*arguments, **named)

        monkeypatch.setattr(place, name, dies)

    yield arm
    monkeypatch.undo()


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = sorted(folder.rglob("*.safetensors"))
    return {str(f.relative_to(folder)): f.read_bytes() for f in files if "checkpoint" not in f.parts}


def unfinished(run, recipe, killed, monkeypatch, *words: str) -> Path:
    """A run that was killed at its second checkpoint's end; its checkpoint's folder."""
    killed(checkpoint_file, "write_tensors", 3)
    with pytest.raises(Killed):
        run("tune", recipe, *STEPS, *words)
    monkeypatch.undo()
    return recipe.parent / "out" / "checkpoint"


@pytest.mark.parametrize("number", range(1, 5))
def test_killed_at_each_save_of_an_artifact(run, recipe, tmp_path, killed, monkeypatch, number):
    assert run("tune", recipe, *STEPS, f"output={tmp_path / 'whole'}").code == 0
    # after the log's first file and three checkpoints, of which two have one before them
    killed(os, "replace", 3 * 2 + number)
    with pytest.raises(Killed):
        run("tune", recipe, *STEPS)
    monkeypatch.undo()
    output = run("tune", recipe, *STEPS, "--json")
    assert output.code == 0 and output.json["resumed_from"] == 9
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_a_finished_run_shows_its_result(run, recipe, tmp_path):
    first = run("tune", recipe, *STEPS, "--json").json
    manifest = (tmp_path / "out" / "softprompt.json").read_bytes()
    again = run("tune", recipe, *STEPS, "--json")
    assert again.code == 0 and again.json["was_finished"] and not first["was_finished"]
    assert again.json["resumed_from"] == 0 and "finished before" in again.err
    assert {**again.json, "was_finished": False} == first
    assert (tmp_path / "out" / "softprompt.json").read_bytes() == manifest
    # nothing reports a resumed run where it began again
    anew = run("tune", recipe, *STEPS, "lr=1e-4", "--overwrite", "--json")
    assert anew.json["resumed_from"] == 0 and "was resumed" not in anew.err


OVER = ("--over", "lr=1e-3,1e-1", "--over", "length=2,3", "--json")


@pytest.mark.parametrize("number", (7, 14, 17))
def test_a_search_killed_between_saves_ends_with_the_same_bytes(
    run, recipe, tmp_path, killed, monkeypatch, number
):
    """Where one setting is saved and the next is not, all resume from the last common step."""
    assert run("search", recipe, *STEPS, f"output={tmp_path / 'whole'}", *OVER).code == 0
    place = (
        (checkpoint.Checkpoints, "write", number) if number < 14 else (artifact, "write_text", number - 13)
    )
    killed(*place)
    with pytest.raises(Killed):
        run("search", recipe, *STEPS, *OVER)
    monkeypatch.undo()
    output = run("search", recipe, *STEPS, *OVER)
    assert output.code == 0, output.err
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    again = run("search", recipe, *STEPS, *OVER).json
    assert all(entry["was_finished"] for entry in again["runs"]) and again["best"] == output.json["best"]


def test_what_dead_runs_left_is_removed(run, recipe, tmp_path):
    for name in (".state.safetensors.abcd1234", ".tmpAbC123", "checkpoint/.checkpoint.safetensors.0_9zzzzz"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"half")
    (tmp_path / "out" / ".mine").write_text("kept")
    assert run("tune", recipe, *STEPS).code == 0
    assert [path.name for path in (tmp_path / "out").rglob(".*")] == [".mine"]


# --- what a run is ---


def reason(text: str) -> str:
    return text.split("error:")[1].split("why:")[1].split("fix:")[0].strip()


def test_a_moved_folder_with_other_names_goes_on(run, recipe, tmp_path, model_folder, killed, monkeypatch):
    unfinished(run, recipe, killed, monkeypatch)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(tmp_path / "out", moved / "result")
    shutil.copytree(model_folder, moved / "model")
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    (moved / "rows.csv").write_text(
        "style,target,input\n" + "".join(f"{r['style']},{r['target']},{r['input']}\n" for r in rows)
    )
    shutil.move(tmp_path / "dev.jsonl", moved / "measured.jsonl")
    shutil.move(recipe, moved / "recipe.yaml")
    places = [
        f"model={moved / 'model'}",
        f"data={moved / 'rows.csv'}",
        f"data.dev={moved / 'measured.jsonl'}",
    ]
    same = ["threads=1", "cache=ram", "cache_budget_mb=100", "schedule=cosine", "method.init=vocab"]
    output = run(
        "tune", moved / "recipe.yaml", *STEPS, f"output={moved / 'result'}", *places, *same, "--json"
    )
    assert output.code == 0, output.err
    assert output.json["resumed_from"] == 6


CHANGES = {
    "lr=0.5": ["the learning rate (train.lr): was 0.03, is 0.5"],
    "seed=4": ["the seed (train.seed): was 0, is 4"],
    "length=5": ["method.length: was 3, is 5"],
    "method=prefix-tuning": ["the method: was 'prompt-tuning', is 'prefix-tuning'"],
    "template.input={{ input }}!": ["the input's template (template.input): was 'Say: {{ input }}'"],
    "cache_dtype=int8": ["train.cache_dtype: was 'auto', is 'int8'"],
    "data.limit=11": ["data.limit: was None, is 11"],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_refusal_names_what_differs(run, recipe, killed, monkeypatch, change):
    unfinished(run, recipe, killed, monkeypatch, "lr=0.03")
    output = run("tune", recipe, *STEPS, "lr=0.03", change)
    assert output.code == 1 and all(words in output.err for words in CHANGES[change]), output.err
    assert "rows" not in reason(output.err)
    assert run("tune", recipe, *STEPS, "lr=0.03", change, "--restart").code == 0
    output = run("tune", recipe, *STEPS, "lr=0.03")
    assert output.code == 1 and "already holds" in output.err and "was" in output.err


@pytest.mark.parametrize(("file", "words"), [("train", "the training rows"), ("dev", "the dev rows")])
def test_changed_rows_are_named(run, recipe, tmp_path, killed, monkeypatch, file, words):
    unfinished(run, recipe, killed, monkeypatch)
    path = tmp_path / f"{file}.jsonl"
    path.write_text(path.read_text().replace("sun", "moon").replace("song", "hymn"))
    output = run("tune", recipe, *STEPS)
    assert output.code == 1 and reason(output.err) == words


TOKENIZERS = {
    "chat template": lambda it: setattr(it, "chat_template", "{{ messages[0]['content'] }} you are new"),
    "handling of text": lambda it: setattr(it, "eos_token", "#"),
}


@pytest.mark.parametrize("part", TOKENIZERS)
def test_a_base_that_was_updated_in_place(run, tmp_path, model_folder, killed, monkeypatch, part):
    from transformers import AutoTokenizer

    model = Path(shutil.copytree(model_folder, tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(model)
    template = 'template: {input: "{{ input }}", target: "{{ target }}", chat: true}'
    recipe = make_project(tmp_path, model, template=template)
    assert run("tune", recipe, "steps=2", f"output={tmp_path / 'done'}").code == 0
    unfinished(run, recipe, killed, monkeypatch)
    TOKENIZERS[part](tokenizer)
    tokenizer.save_pretrained(model)
    for words in (["tune", recipe, *STEPS], ["generate", tmp_path / "done", "sun"]):
        output = run(*words)
        assert output.code == 1 and part in output.err, output.err
    assert run("generate", tmp_path / "done", "sun", "--other-base").code == 0


# --- two runs in one folder ---


def test_a_second_run_is_refused_while_the_first_lives(run, recipe, tmp_path):
    code = "import sys; from softprompt.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "tune", str(recipe), "steps=100000", "eval_every=1"]
    first = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        while not (tmp_path / "out" / "checkpoint" / FILE).exists():
            assert first.poll() is None
            time.sleep(0.05)
        for command in (["tune", recipe, "lr=0.5"], ["tune", recipe, "--overwrite"]):
            output = run(*command)
            assert (
                output.code == 1 and "another run is writing" in output.err and str(first.pid) in output.err
            )
        (tmp_path / "link").symlink_to(tmp_path / "out")
        assert "another run" in run("tune", recipe, f"output={tmp_path / 'link'}").err
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert run("tune", recipe, *STEPS, "--restart").code == 0  # a dead run holds nothing
    assert not (tmp_path / "out" / ".lock").exists()


# --- checkpoints ---


def test_a_damaged_checkpoint_is_gone_on_from_the_one_before(run, recipe, tmp_path, killed, monkeypatch):
    assert run("tune", recipe, *STEPS, f"output={tmp_path / 'whole'}").code == 0
    folder = unfinished(run, recipe, killed, monkeypatch)
    content = bytearray((folder / FILE).read_bytes())
    content[-5] ^= 4  # of a number
    (folder / FILE).write_bytes(content)
    output = run("tune", recipe, *STEPS, "--json")
    assert output.code == 0 and output.json["resumed_from"] == 3
    assert "does not match its hash" in output.err and "the one before" in output.err
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def retyped(folder: Path) -> None:
    """Numbers of another type, with a hash that agrees."""
    found, identity = checkpoint_file.read(folder / FILE)
    tensors = {name: tensor.double() for name, tensor in found.tensors.items()}
    output = {"identity": json.dumps(identity), "progress": json.dumps(asdict(found.progress))}
    write_tensors(folder / FILE, tensors, output | {"digest": checkpoint_file._digest(tensors, output)})


DAMAGES = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "no header": lambda file: file.write_bytes(b"\xff" * 200),
    "empty": lambda file: file.write_bytes(b""),
    "pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "device": lambda file: (file.unlink(), file.symlink_to("/dev/zero")),
    "folder": lambda file: (file.unlink(), file.mkdir()),
    "other tensors": lambda file: write_tensors(
        file, {"a": torch.ones(1)}, {"identity": "{}", "digest": "0"}
    ),
    "retyped": lambda file: retyped(file.parent),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_checkpoint_of_no_use_is_one_error(run, recipe, killed, monkeypatch, how):
    folder = unfinished(run, recipe, killed, monkeypatch)
    (folder / PREVIOUS).unlink()
    DAMAGES[how](folder / FILE)
    output = run("tune", recipe, *STEPS)
    assert output.code == 1 and "is damaged" in output.err
    assert ("remove it" if how == "folder" else "--restart") in output.err
    if how != "folder":
        assert run("tune", recipe, *STEPS, "--restart").code == 0


def test_a_checkpoint_of_an_earlier_version_is_refused(run, recipe, tmp_path):
    folder = tmp_path / "out" / "checkpoint"
    write_tensors(folder / FILE, {"now/prompt.table": torch.ones(1)}, {"identity": "abc", "progress": "{}"})
    output = run("tune", recipe, *STEPS)
    assert output.code == 1 and "earlier version" in output.err and "--restart" in output.err


def test_seconds_of_a_resumed_run_count_all_its_parts(run, recipe, killed, monkeypatch):
    folder = unfinished(run, recipe, killed, monkeypatch)
    before = checkpoint_file.read(folder / FILE)[0].progress
    assert before.other_seconds > 0
    found = run("tune", recipe, *STEPS, "--json").json
    assert found["seconds_with_caches"] >= found["seconds"]


# --- rows that no step reads ---


def test_only_rows_that_steps_read_are_kept(run, recipe, tmp_path, monkeypatch):
    from softprompt.cache import KeyValues

    rows = [{"input": f"row {i}", "target": ("good", "bad")[i % 2]} for i in range(200)]
    write_rows(tmp_path / "train.jsonl", rows)
    computed: list[str] = []
    real = KeyValues.compute
    monkeypatch.setattr(
        KeyValues, "compute", lambda self, some: computed.extend(map(self.name, some)) or real(self, some)
    )
    words = ["steps=5", f"cache_folder={tmp_path / 'kv'}"]
    for number, cache in enumerate(("disk", "ram")):
        computed.clear()
        output = run("tune", recipe, *words, f"cache={cache}", f"output={tmp_path / str(number)}")
        assert output.code == 0, output.err
        assert 0 < len(set(computed)) <= 5 * 4 + 4  # of steps, and the dev rows
    # more steps read more rows, and those that are there are not computed again
    computed.clear()
    before = len(list((tmp_path / "kv").glob("*/*.safetensors")))
    assert run("tune", recipe, "steps=8", words[1], "cache=disk", f"output={tmp_path / 'more'}").code == 0
    assert before == 1 and len(set(computed)) == 3 * 4


@pytest.mark.parametrize("name", ("threads", "plan"))
def test_a_resume_that_computes_otherwise_says_so(run, recipe, killed, monkeypatch, name):
    """And not of a cache on disk, from which the same numbers are read as from memory."""
    words = ("threads=1", "cache=ram")
    killed(checkpoint_file, "write_tensors", 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with pytest.raises(Killed):
        run("tune", recipe, *STEPS, *words)
    monkeypatch.undo()
    monkeypatch.setattr("softprompt._system.notes._shown", set())
    changed = {"threads": ("threads 1, then 2", "cache=disk"), "plan": ("plan cached, then ", "cache=off")}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2 if name == "threads" else 1)
    text = run("tune", recipe, *STEPS, changed[name][1]).err
    assert "to rounding, not to the byte" in text and changed[name][0] in text
    assert ("plan" in text.split("differently (")[1]) == (name == "plan")
