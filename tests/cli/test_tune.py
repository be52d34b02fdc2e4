"""`tune`: what it prints, what it saves, and that an interrupted run loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from softprompt import methods
from softprompt.config.load import load_recipe
from softprompt.training import sweep, sweep_estimate

from .conftest import make_project

pytestmark = pytest.mark.whole

ALWAYS = property(lambda self: True, lambda self, value: None)
CLI = [sys.executable, "-c", "import sys; from softprompt.cli import main; sys.exit(main())"]


def test_tune_prints_scores_beside_the_plain_model_and_the_next_command(run, recipe, tmp_path):
    message = run("tune", recipe)
    assert message.code == 0, message.err
    assert "prompt-tuning" in message.out and "plain model" in message.out and "96 parameters" in message.out
    assert f"softprompt eval {tmp_path / 'out'} --data FILE" in message.out
    assert "step 4/4" in message.err and "plan: cached-ram" in message.err
    assert "Traceback" not in message.err and "warn" not in message.err.lower()


def test_tune_json(run, recipe, tmp_path):
    found = run("tune", recipe, "--json").json
    assert found["artifact"] == str(tmp_path / "out") and found["n"] == 4
    assert set(found["metrics"]) == set(found["intervals"]) == {"accuracy", "macro_f1"}
    low, high = found["intervals"]["accuracy"]
    assert 0 <= low <= found["metrics"]["accuracy"] <= high <= 1
    assert set(found["plain"]) >= {"metrics", "intervals", "n"}
    assert (found["steps"], found["stopped"], found["resumed_from"]) == (4, "finished", 0)
    assert found["trained_parameters"] == 96 and found["bytes"] > 0 and found["peak_memory_bytes"] > 0


def test_tune_refuses_to_replace_a_tuned_prompt(run, recipe, tmp_path):
    assert run("tune", recipe).code == 0
    before = (tmp_path / "out" / "state.safetensors").read_bytes()
    message = run("tune", recipe, "lr=0.5", "--json")
    assert message.code == 1 and "--overwrite" in message.json["error"]["fix"]
    assert (tmp_path / "out" / "state.safetensors").read_bytes() == before
    assert run("tune", recipe, "lr=0.5", "--overwrite").code == 0
    assert (tmp_path / "out" / "state.safetensors").read_bytes() != before


def test_checkpoint_of_another_recipe_is_refused_and_dropped_by_restart(run, recipe, tmp_path, monkeypatch):
    from softprompt.cli.interruption import Interruption

    monkeypatch.setattr(Interruption, "requested", ALWAYS, raising=False)
    assert run("tune", recipe).code == 130
    monkeypatch.undo()
    message = run("tune", recipe, "lr=0.5")
    assert message.code == 1 and "--restart" in message.err
    assert run("tune", recipe, "lr=0.5", "--restart").code == 0


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_goes_on_and_ends_with_the_same_bytes(tmp_path, model_folder, number):
    """A real process, a real signal, and the same command again."""
    step = 400
    folders = [tmp_path / "whole", tmp_path / "cut"]
    for folder in folders:
        folder.mkdir()
        make_project(folder, model_folder, output=f"output: {folder / 'out'}")
    whole, cut = ([*CLI, "tune", f / "recipe.yaml", f"steps={step}", "eval_every=20"] for f in folders)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(whole, env=environment, check=True, capture_output=True)
    process = subprocess.Popen(
        cut, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip().startswith("step"):
            process.send_signal(number)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "is saved in" in out and f"softprompt tune {folders[1] / 'recipe.yaml'} steps={step}" in out
    assert "Traceback" not in err
    assert not (folders[1] / "out" / "softprompt.json").exists()
    again = subprocess.run(cut, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "resuming from step" in again.stderr
    results = [(folder / "out" / "state.safetensors").read_bytes() for folder in folders]
    assert results[0] == results[1]


def test_interrupted_json_says_how_to_go_on(run, recipe, tmp_path, monkeypatch):
    from softprompt.cli.interruption import Interruption

    monkeypatch.setattr(Interruption, "requested", ALWAYS, raising=False)
    message = run("tune", recipe, "--json")
    assert message.code == 130
    assert message.json["interrupted"] and message.json["resume"] == f"softprompt tune {recipe}"


def test_ctrl_c_before_training_stops_at_once(run, recipe, monkeypatch):
    import softprompt.training.prepare

    def stopped(read, world):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(softprompt.training.prepare, "prepare", stopped)
    before = signal.getsignal(signal.SIGINT)
    message = run("tune", recipe)
    assert message.code == 130 and "stopped before the first save" in message.out
    assert signal.getsignal(signal.SIGINT) is before


def test_nan_loss_stops_keeps_a_good_state_and_suggests_a_rate(run, recipe, tmp_path, monkeypatch):
    from softprompt.training import step

    real, calls = step.token_losses, []

    def diverging(*arguments):
        calls.append(1)
        found = real(*arguments)
        return replace(found, values=found.values * (float("nan") if len(calls) > 2 else 1.0))

    monkeypatch.setattr(step, "objective_of", lambda task: diverging)
    message = run("tune", recipe, "eval_every=1", "lr=0.3")
    assert message.code == 1
    assert "not finite at step 3" in message.err and "train.lr=" in message.err
    assert run("eval", tmp_path / "out", "--data", tmp_path / "dev.jsonl").code == 0


def test_gradient_that_is_not_finite_leaves_the_start(run, recipe, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    from softprompt.training import step

    real = step.token_losses

    def steep(*arguments):
        found = real(*arguments)
        return replace(found, values=(found.values * 0).sqrt())  # 0, with a gradient of NaN

    monkeypatch.setattr(step, "objective_of", lambda task: steep)
    assert run("tune", recipe).code == 1
    tensors = load_file(tmp_path / "out" / "state.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_no_memory_for_the_cache_falls_back_and_says_so(run, recipe, monkeypatch):
    from softprompt.cache import memory_store

    def refuse(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(memory_store, "lazily", refuse)
    message = run("tune", recipe)
    assert message.code == 0 and "no memory for the cache" in message.err


def test_memory_that_runs_out_elsewhere_is_said(run, recipe, monkeypatch):
    from softprompt.training import step

    def refuse(*arguments):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 5 bytes")

    monkeypatch.setattr(step, "objective_of", lambda task: refuse)
    message = run("tune", recipe)
    assert message.code == 1 and "memory ran out" in message.err and "batch_size" in message.err


def test_full_disk_is_said_and_nothing_is_half_written(run, recipe, tmp_path, monkeypatch):
    import errno

    real = os.fsync

    def full(descriptor):
        if "checkpoint" not in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    message = run("tune", recipe)
    assert message.code == 1 and "the disk is full" in message.err
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["checkpoint"]
    message = run("tune", recipe)
    assert message.code == 0 and "resuming from step 4" in message.err


def test_relative_output_is_where_the_command_runs(run, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("tune", "recipe.yaml", "output=here", "steps=1").code == 0
    assert Path("here/softprompt.json").exists()


# --- several in one run ---


def test_search_trains_every_setting_and_names_the_best(run, recipe, tmp_path):
    message = run(
        "search", recipe, "eval_every=2", "--over", "lr=1e-3,1e-1", "--over", "length=2,3", "--json"
    )
    assert message.code == 0, message.err
    names = {entry["name"]: entry for entry in message.json["runs"]}
    assert set(names) == {f"lr={lr},length={n}" for lr in ("1e-3", "1e-1") for n in (2, 3)}
    for name, entry in names.items():
        assert entry["artifact"] == str(tmp_path / "out" / name)
        assert run("eval", entry["artifact"], "--data", tmp_path / "dev.jsonl").code == 0
    best = max(entry["metrics"]["accuracy"] for entry in names.values())
    assert message.json["runs"][0]["metrics"]["accuracy"] == best
    assert message.json["best"] == message.json["runs"][0]["artifact"]
    assert "it will take about" in message.err and f"{4 * 4} steps in all" in message.err
    again = run("search", recipe, "eval_every=2", "--over", "lr=1e-3,1e-1", "--over", "length=2,3,4")
    assert f"{2 * 4} steps in all" in again.err  # the others are finished
    finished = run("search", recipe, "eval_every=2", "--over", "lr=1e-3", "--over", "length=2")
    assert finished.code == 0 and "it will take" not in finished.err


def test_what_is_timed_ahead_stays_as_it_was(recipe, monkeypatch):
    """Runs that keep their inputs and runs that do not, side by side; what is done of them is left out."""
    over = [("placement=after", "lr=0.5"), ("placement=before", "lr=0.5"), ("method=prefix-tuning", "lr=0.1")]
    recipes = [
        load_recipe(recipe, [*how, f"output=out{i}"], method_option_names=methods.option_names())
        for i, how in enumerate(over)
    ]
    runs = sweep.prepare_settings(recipes)
    trained = [p for one in runs for p in (*one.method.parameters(), *one.lm.model.parameters())]
    before = [p.detach().clone() for p in trained]
    monkeypatch.setattr(sweep_estimate, "saved_step", lambda folder: 2 if "out1" in str(folder) else 0)
    left = sweep_estimate.left_of(runs, restart=False, overwrite=False)
    assert [(one.steps, one.evaluations) for one in left] == [(4, 4), (2, 2), (4, 4)]
    assert [one.steps for one in sweep_estimate.left_of(runs, restart=True, overwrite=False)] == [4, 4, 4]
    assert sweep_estimate.seconds_of(left) > 0
    assert all(a.equal(b) and b.grad is None for a, b in zip(before, trained, strict=True))


def test_search_over_nothing_or_nonsense_is_refused(run, recipe):
    assert "nothing to search" in run("search", recipe).err
    assert "no values" in run("search", recipe, "--over", "lr").err
    assert "unknown" in run("search", recipe, "--over", "lrr=1,2").err


def test_prompts_apart_are_saved_apart(run, recipe, tmp_path):
    message = run("tune", recipe, "apart=true", "prompt_field=style", "template.input={{ input }}")
    assert message.code == 0, message.err
    assert "joke" in message.out and "fact" in message.out and "plain model" in message.out
    for name in ("joke", "fact"):
        answer = run("generate", tmp_path / "out" / name, "sun", "--json")
        assert answer.code == 0, answer.err
