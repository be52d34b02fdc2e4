"""Training that is tracked has the same numbers as without, also through an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import softprompt
from softprompt.artifacts.manifest import read as read_manifest
from softprompt.config.load import recipe_from_dict
from softprompt.errors import SoftPromptError
from softprompt.tracking.journal import FILE, read
from softprompt.training.prepare import prepare
from softprompt.training.tune import Hooks, Interrupted, tune

pytestmark = pytest.mark.whole

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss"]
ROWS = [{"input": f"{w} {i}", "target": ("good", "bad")[i % 2]} for i, w in enumerate(WORDS * 2)]


class Own:
    """A tracker of the user's own."""

    def __init__(self):
        self.logged, self.config, self.ended = [], {}, False

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.ended = True


@pytest.fixture
def prepared(model_folder, tmp_path):
    def make(track, output="out", **train):
        recipe = recipe_from_dict(
            {
                "model": str(model_folder),
                "data": {"train": "rows"},
                "task": {"kind": "classification"},
                "method": {"name": "prompt-tuning", "length": 3},
                "train": {"steps": 6, "batch_size": 4, "eval_every": 3, "dtype": "float32", **train},
                "output": str(tmp_path / output),
                "track": track,
            }
        )
        return prepare(recipe, rows=ROWS[:12], dev_rows=ROWS[12:])

    return make


def losses(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("train/loss")]


def lines(folder: Path, kind: str) -> list[dict]:
    return [line for line in read(folder / FILE) if line["kind"] == kind]


def test_tracking_changes_no_bit_of_the_vectors(prepared, tmp_path):
    own = Own()
    tune(prepared("tensorboard", "tracked"), trackers=[own])
    tune(prepared([], "plain"))
    for name in ("prompt.safetensors", "state.safetensors"):
        assert (tmp_path / "tracked" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert prepared("tensorboard").identity() == prepared([]).identity()
    steps = lines(tmp_path / "plain", "step")
    assert [(s["step"], pytest.approx(s["loss"])) for s in steps] == losses(
        tmp_path / "tracked" / "tensorboard"
    )
    assert [values["train/loss"] for step, values in own.logged[:6]] == [s["loss"] for s in steps]
    assert own.config["train.steps"] == 6 and own.config["train.lr"] == 0.03 and own.ended


def test_the_journal_holds_the_run_from_its_recipe_to_its_hash(prepared, tmp_path):
    ready = prepared({"mlflow": {"uri": "https://me:secret@host"}}).recipe.untracked()
    run = tune(prepare(ready, rows=ROWS[:12], dev_rows=ROWS[12:]))
    first, *steps, result = read(tmp_path / "out" / FILE)
    assert first["recipe"]["method"] == {"name": "prompt-tuning", "length": 3}
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert all(line["tokens_per_second"] > 0 and line["seconds"] > 0 and line["lr"] > 0 for line in steps)
    assert [set(line.get("dev", ())) for line in steps] == [set(), set(), {"accuracy", "macro_f1"}] * 2
    assert [line["loss"] for line in steps if "dev" in line] == [h["loss"] for h in run.outcome.history]
    assert result["digest"] == read_manifest(tmp_path / "out" / "softprompt.json")["digest"]
    assert result["dev"] == {name: score.value for name, score in run.dev.metrics.items()}


def test_tokens_are_those_of_the_rows_of_a_step(prepared, tmp_path):
    """Twelve rows in batches of four: three steps see each row once."""
    ready = prepared([], steps=3)
    tune(ready)
    steps = lines(tmp_path / "out", "step")
    spent = [b["seconds"] - a["seconds"] for a, b in zip([{"seconds": 0.0}, *steps], steps, strict=False)]
    tokens = sum(s["tokens_per_second"] * t for s, t in zip(steps, spent, strict=True))
    assert tokens == pytest.approx(sum(len(e.input_ids) + len(e.target_ids) for e in ready.train))


def test_an_interrupted_run_continues_its_tracker_and_may_get_another(prepared, tmp_path):
    seen: list[int] = []
    hooks = Hooks(on_event=lambda event: seen.append(event.step), should_stop=lambda: len(seen) == 2)
    with pytest.raises(Interrupted):
        tune(prepared("tensorboard"), hooks=hooks)
    own = Own()
    assert tune(prepared("tensorboard"), trackers=[own]).resumed_from == 2
    assert [step for step, _ in losses(tmp_path / "out" / "tensorboard")] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in own.logged[:6]] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines(tmp_path / "out", "step")] == [1, 2, 3, 4, 5, 6]
    seconds = [line["seconds"] for line in lines(tmp_path / "out", "step")]
    assert seconds == sorted(seconds)


def test_a_tracker_that_does_not_start_leaves_everything_as_it_was(prepared, tmp_path, monkeypatch):
    tune(prepared([]))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    class Broken(Own):
        def start(self):
            raise OSError("no network")

    with pytest.raises(SoftPromptError, match="does not start"):
        tune(prepared([], steps=5), trackers=[Broken()], overwrite=True)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_the_manifest_does_not_hold_the_trackers(prepared, tmp_path):
    tune(prepared({"tensorboard": {"dir": str(tmp_path / "events")}}))
    assert "events" not in (tmp_path / "out" / "softprompt.json").read_text()
    assert len(losses(tmp_path / "events" / "out")) == 6


def test_a_search_is_a_run_for_each_setting(model_folder, tmp_path):
    lm = softprompt.load(str(model_folder), dtype="float32")
    over, output = {"lr": [1e-3, 1e-2]}, tmp_path / "search"
    settings = {"task": "classification", "steps": 3, "batch_size": 4, "length": 3, "output": output}
    softprompt.search(lm, "prompt-tuning", ROWS, over, track="tensorboard", **settings)
    for lr in over["lr"]:
        folder = output / f"lr={lr}"
        assert losses(folder / "tensorboard") == [
            (line["step"], pytest.approx(line["loss"])) for line in lines(folder, "step")
        ]
        assert json.loads((folder / "softprompt.json").read_text())["recipe"]["train"]["lr"] == lr
    with pytest.raises(SoftPromptError, match="cannot follow several runs"):
        softprompt.search(lm, "prompt-tuning", ROWS, over, track=Own(), overwrite=True, **settings)


def test_a_python_caller_reads_about_arguments(model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SoftPromptError) as error:
        softprompt.tune(str(model_folder), "prompt-tuning", ROWS, track="wandb", output=tmp_path / "out")
    assert 'track={"wandb": {"mode": "offline"}}' in error.value.fix
    with pytest.raises(SoftPromptError, match="did you mean 'tensorboard'"):
        softprompt.tune(str(model_folder), "prompt-tuning", ROWS, track="tensorbord")
