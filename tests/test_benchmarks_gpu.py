"""The short form of benchmarks.gpu holds on a processor, and a run continues where it was cut off."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("peft", reason="the benchmarks run beside PEFT (softprompt[lora])")

from benchmarks import base_models, gpu
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import exact, flash, graphs, results, reviews, supervise
from benchmarks.gpu.piece import Piece, Subject
from benchmarks.training.line import Line
from tests.printed import printed
from transformers import AutoModelForCausalLM, LlamaConfig

from softprompt.errors import SoftPromptError
from softprompt.lm import flash_attention
from softprompt.testing.material import tiny_tokenizer

pytestmark = pytest.mark.whole

PAGE = (Path(__file__).parents[1] / "docs/performance.md").read_text(encoding="utf-8")


def run(*arguments: str) -> tuple[int, str]:
    return printed(command.main, *arguments)


def test_the_short_form_holds(tmp_path):
    code, text = run("--short", "--out", str(tmp_path))
    values = json.loads((tmp_path / "gpu.json").read_text())
    assert [(piece["piece"], piece["error"]) for piece in values["pieces"] if piece["error"]] == []
    assert [line for piece in values["pieces"] for line in piece["lines"] if line["fault"]] == []
    assert [piece["piece"] for piece in values["pieces"]] == [p.name for p in gpu.in_short(gpu.PIECES)]
    assert (code, values["not_run"]) == (0, [])
    assert (tmp_path / "gpu.md").read_text() == text[:-1]
    assert {piece["piece"].split("/")[0] for piece in values["pieces"]} == {
        piece.name.split("/")[0] for piece in gpu.PIECES
    }


@pytest.fixture
def pieces(monkeypatch) -> list[str]:
    """Pieces that note that they are run; the second one fails after a line, the third one gives none."""
    ran: list[str] = []

    def piece(name: str, seconds: float, lines: int, error: Exception | None = None) -> Piece:
        def measure(subject: Subject) -> Iterator[Line]:
            ran.append(name)
            for i in range(lines):
                yield Line("x", f"case {i}", 1.0, 2.0, "s", 0.5)
            if error is not None:
                raise error

        return Piece(name, "measure", measure, seconds)

    made = (
        piece("first", 1, 1),
        piece("second/a", 1, 1, RuntimeError("\nout of memory | all of it\nmore")),
        piece("third", 1, 0),
        piece("slow", 10**6, 1),
        piece("last", 1, 2),
    )
    monkeypatch.setattr(command, "PIECES", made)
    monkeypatch.setattr(command, "in_short", lambda pieces: list(pieces))
    return ran


def test_a_failure_is_recorded_and_the_rest_runs_once(pieces, tmp_path, capsys):
    where = ["--out", str(tmp_path)]
    assert command.main([*where, "--worker"]) == 0
    assert pieces == ["first", "second/a", "third", "last"]  # the slow one does not fit
    code, text = run(*where, "--list")
    assert code == 1
    assert "| second/a | case 0 | 1 | 2 | s | 0.50 |" in text
    assert "WRONG: RuntimeError: out of memory / all of it" in text and "it gave no result" in text
    assert "Not run yet: slow." in text
    command.main([*where, "--worker"])
    assert len(pieces) == 4  # nothing is run again, what failed neither
    command.main([*where, "--worker", "--only", "slow", "--minutes", "1e9"])
    run(*where, "--short", "--only", "second")  # the short form has results of its own
    assert pieces[4:] == ["slow", "second/a"]
    trace = json.loads((tmp_path / "second_a.json").read_text())["trace"]
    assert "RuntimeError" in trace
    with pytest.raises(SystemExit):
        command.main([*where, "--only", "none"])
    assert "names no piece" in capsys.readouterr().err


def test_results_count_for_the_same_rows_and_models(pieces, tmp_path, monkeypatch):
    where = ["--out", str(tmp_path / "out"), "--worker", "--only", "first"]
    command.main(where)
    command.main([*where, "--data", str(tmp_path)])
    monkeypatch.setattr(command.smollm2, "is_installed", lambda: False)
    command.main(where)
    assert pieces == ["first"] * 3
    command.main(where)
    run("--out", str(tmp_path / "out"), "--list", "--again")  # drops nothing
    command.main(where)
    assert len(pieces) == 3


def test_what_a_piece_has_kept_is_of_its_settings(pieces, tmp_path, monkeypatch):
    folders: list[Path] = []

    def keep(subject: Subject) -> Iterator[Line]:
        folders.append(subject.folder)
        subject.folder.mkdir(parents=True, exist_ok=True)
        assert not [*subject.folder.iterdir()]
        (subject.folder / "kept").touch()
        yield Line("x", "case", 1.0, 1.0, "s")

    monkeypatch.setattr(command, "PIECES", (Piece("kept", "measure", keep, 1),))
    for more in ([], ["--again"], ["--data", str(tmp_path)]):
        assert run("--out", str(tmp_path / "out"), "--short", *more)[0] == 0
    assert folders[0] == folders[1] != folders[2]


def test_a_gpu_that_is_lost_ends_the_worker(pieces, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "LOST", ("out of memory",))
    assert command.main(["--out", str(tmp_path), "--worker"]) == supervise.AGAIN
    assert pieces == ["first", "second/a"]
    assert command.main(["--out", str(tmp_path), "--worker"]) == 0
    assert pieces == ["first", "second/a", "third", "last"]


# It runs what is left of four pieces: the second ends the process, and the third one hangs.
WORKER = """
import json, os, sys, time
folder, names = sys.argv[1], ["a", "b", "c", "d"]
for name in names:
    if os.path.exists(f"{folder}/{name}"):
        continue
    open(f"{folder}/running.part", "w").write(json.dumps({"piece": name, "since": time.time()}))
    os.replace(f"{folder}/running.part", f"{folder}/running")
    if name == "b":
        os._exit(9)
    if name == "c":
        time.sleep(60)
    open(f"{folder}/{name}", "w").close()
"""


def test_a_process_that_ends_or_hangs_is_replaced(tmp_path):
    failed: dict[str, str] = {}

    def record(name: str, why: str) -> None:
        failed[name] = why
        (tmp_path / name).touch()

    def worker(seconds: float) -> list[str]:
        return [sys.executable, "-S", "-c", WORKER, str(tmp_path)]

    supervise.supervise(worker, tmp_path / "running", dict.fromkeys("abcd", 1.0), record, 60)
    assert failed == {"b": "its process ended with code 9", "c": "it was ended: it ran for more than 1 s"}
    assert (tmp_path / "a").exists() and (tmp_path / "d").exists()


def test_the_time_ends_a_piece_without_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "GRACE", 0.2)
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    started, failed = time.time(), []
    command = [sys.executable, "-S", "-c", WORKER, str(tmp_path)]
    supervise.supervise(
        lambda _: command, tmp_path / "running", {"c": 99.0}, lambda *given: failed.append(given), 0.5
    )
    assert failed == [] and time.time() - started < 30


def test_what_a_capture_refuses():
    with graphs.AsInCapture():
        numbers = torch.arange(3.0) + 1
        for waits in (
            numbers.sum().item,
            lambda: torch.tensor([1.0]),
            lambda: bool(numbers.all()),
            numbers.unique,
            lambda: numbers[numbers > 1],
            lambda: numbers.index_put_([numbers > 1], numbers[0]),
        ):
            with pytest.raises(RuntimeError, match="cannot be captured"):
                waits()
        assert numbers[torch.arange(2)].shape == (2,)  # by numbers, not by a mask


def test_a_step_that_differs_from_training_is_wrong(tmp_path, monkeypatch):
    subject = Subject(tmp_path, short=True)
    monkeypatch.setattr(graphs.FixedStep, "load", lambda self, indices: None)  # the other rows are not read
    assert ["differs" in line.fault for line in graphs.measure(subject, "random-8b", 8)] == [True, True]


def test_kernels_that_differ_are_wrong(tmp_path, monkeypatch):
    join = flash_attention._join
    monkeypatch.setattr(flash_attention, "_join", lambda *given: (0.9 * join(*given)[0], join(*given)[1]))
    subject = Subject(tmp_path, short=True)
    assert ["differs from float32" in line.fault for line in flash.measure(subject)] == [True]
    assert "flash against sdpa" in next(flash.steps(subject, "random-8b", 8)).fault
    lines = []
    with pytest.raises(SoftPromptError, match="keys and values"):  # flash: loading a model tries its caches
        for line in exact.float32(subject):
            lines.append(line)
    assert [line.fault for line in lines] == ["", ""]


def test_random_models_have_their_sizes_and_a_token_for_each_id():
    counts = {}
    for name, shape in base_models.SHAPES.items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(LlamaConfig(**shape))
        counts[name] = sum(p.numel() for p in model.parameters()) / 1e6
    assert {name: round(count, -1) for name, count in counts.items()} == {
        "random-tiny": 0,
        "random-135m": 130,
        "random-1b": 1240,
        "random-8b": 8030,
    }
    wide = base_models.tokenizer(500)
    assert len(wide) == 500 and len({wide.decode([i]) for i in range(500)}) == 500
    assert wide("a b\nc")["input_ids"] == tiny_tokenizer()("a b\nc")["input_ids"]


def test_another_library_gets_the_same_weights_without_ours():
    lm: Any = base_models.load("random-tiny", "float32")
    assert base_models.load("random-tiny", "float32") is lm
    plain = base_models.plain(lm)
    pairs = zip(plain.parameters(), lm.model.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert plain.config._attn_implementation == "sdpa"
    ids = torch.arange(3, 9)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, lm.model(input_ids=ids).logits)


def test_made_up_reviews(tmp_path):
    folder = reviews.write(tmp_path / "r", train=40, validation=10)
    rows = [json.loads(line) for line in (folder / "sst2/train.jsonl").read_text().splitlines()]
    assert len(rows) == 40 and sum(row["target"] == "positive" for row in rows) == 20
    for row in rows:
        labels = {label for label, words in reviews.WORDS.items() if set(words) & set(row["input"].split())}
        assert labels == {row["target"]}


def test_the_page_names_the_command():
    assert "python -m benchmarks.gpu --minutes 10" in PAGE
