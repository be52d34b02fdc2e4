"""The short form of benchmarks.earlier ends: two versions take turns, and each work has its seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.earlier import __main__ as command
from benchmarks.earlier import work
from benchmarks.training import tiny
from tests.printed import printed

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.whole


def test_two_versions_take_turns(capfd):
    code, out = printed(command.main, str(ROOT), "--short", "--only", "steps-then", "--json")
    measured = json.loads(out)["lines"]
    assert code == 0 and [line["fault"] for line in measured] == [""] * 3
    assert all(line["ours"] > 0 and line["theirs"] > 0 for line in measured)
    shown = [line for line in capfd.readouterr().err.splitlines() if line.startswith("a cached step")]
    turns = [line.partition(": ")[0] for line in shown]
    assert turns[::3] == [turns[0], turns[0].replace("theirs", "ours")]


@pytest.mark.parametrize(("kind", "cases"), [("answers", 2), ("steps", 3), ("demo", 1)])
def test_each_kind_of_work_gives_its_seconds(kind, cases, tmp_path, monkeypatch, capsys):
    model, _ = tiny.make(tmp_path)
    if kind == "demo":
        _restored(monkeypatch)
    threads = torch.get_num_threads()
    try:
        work.main(kind, str(command.SHORT), "process_time", str(model))
    finally:
        torch.set_num_threads(threads)
    seconds: dict[str, float] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(seconds) == cases and min(seconds.values()) > 0


def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what the work changes in the demo's modules set back after the test."""
    from softprompt_demo import plan, run, state

    changed: list[tuple[Any, str]] = [(run, "STEPS"), (run, "demo_rows"), (run.loading, "load")]
    changed += [(module, name) for module in (plan, state) for name in ("SECONDS", "AT_MOST")]
    for module, name in changed:
        if hasattr(module, name):
            monkeypatch.setattr(module, name, getattr(module, name))


def test_a_folder_that_is_no_worktree_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main([str(tmp_path), "--short"])
    assert "is no worktree of this repository" in capsys.readouterr().err


def test_a_side_that_fails_ends_the_command(tmp_path):
    (tmp_path / "src/softprompt").mkdir(parents=True)
    (tmp_path / "src/softprompt/__init__.py").write_text("raise RuntimeError('an old fault')")
    with pytest.raises(SystemExit, match="an old fault"):
        command.main([str(tmp_path), "--short", "--only", "steps-then"])
