"""Contract 8 where something breaks on the way: a full disk and a loss that is not finite lose nothing."""

from __future__ import annotations

import errno

import pytest
import torch
from safetensors import SafetensorError
from tests.fit import fit

from softprompt._system import files
from softprompt.artifacts import artifact
from softprompt.evaluation.records import DevScore
from softprompt.training.learner import Optimization
from softprompt.training.losses import next_token

# --- a full disk ---

FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=["from the system", "through safetensors"])
def test_full_disk_keeps_what_was_there(monkeypatch, tmp_path, refused, error):
    path = tmp_path / "state.safetensors"
    files.write_tensors(path, {"a": torch.ones(3)})
    old = path.read_bytes()

    def full(tensors, target, metadata=None):
        target.write_bytes(b"half of")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", full)
    refused(lambda: files.write_tensors(path, {"a": torch.zeros(3)}), "disk is full", str(path))
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file is left


def test_full_disk_at_the_last_moment(monkeypatch, tmp_path, refused):
    """The write itself may succeed in memory and fail when it is forced to the disk."""
    path = tmp_path / "softprompt.json"
    files.write_text(path, "old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    refused(lambda: files.write_text(path, "new"), "disk is full")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_full_disk_during_save_leaves_no_whole_looking_artifact(
    monkeypatch, llama, build, all_cases, manifest_for, tmp_path, refused
):
    case = next(c for c in all_cases if c.id == "prefix-tuning-before")
    original, left = files.write_text, [1]

    def full_after_the_first(path, text):
        if not left:
            raise files.unwritable(path, OSError(errno.ENOSPC, "full"))
        left.pop()
        original(path, text)

    monkeypatch.setattr(artifact, "write_text", full_after_the_first)
    method, manifest = build(llama, case), manifest_for(llama, case)
    refused(lambda: artifact.save(tmp_path, method, llama, manifest), "disk is full")
    refused(lambda: artifact.load(tmp_path), "no tuned prompt")  # the manifest is written last


def test_folder_that_cannot_be_written(tmp_path, refused):
    (tmp_path / "file").write_text("")
    refused(lambda: files.write_text(tmp_path / "file" / "x.json", ""), "cannot write", "output=FOLDER")


# --- a loss that is not finite ---


@pytest.fixture
def diverging(llama, build, all_cases, batch):
    """`diverging(at, how)`: a run whose loss or gradient is not finite at step `at` (from 0)."""
    case = next(c for c in all_cases if c.id == "prefix-tuning-after")

    def run(at, factor, folder=None, eval_every=2):
        method = build(llama, case, perturbed=False)
        start = {name: p.detach().clone() for name, p in method.named_parameters()}
        scores = iter(range(100))
        steps = iter(range(100))

        def loss_of(rows):
            loss = next_token(llama, method, batch)
            return loss * factor if next(steps) == at else loss

        how = Optimization(10, 1e-2, 4, eval_every=eval_every)
        score = lambda: DevScore((float(next(scores)),), "s", 0.0)  # noqa: E731
        return fit(llama, method, loss_of, [1] * 4, score, how, folder=folder), method, start

    return run


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_and_keeps_the_best(diverging, factor, tmp_path):
    outcome, method, start = diverging(5, factor, tmp_path)
    assert (outcome.stopped, outcome.step, outcome.best_step) == ("nan", 5, 4)
    for name, parameter in method.named_parameters():
        assert parameter.isfinite().all() and not torch.equal(parameter, start[name])


def test_loss_that_is_not_finite_before_the_first_evaluation(diverging):
    outcome, method, start = diverging(1, float("nan"), eval_every=5)
    assert (outcome.stopped, outcome.step, outcome.best_step) == ("nan", 1, 0)
    assert all(torch.equal(p, start[name]) for name, p in method.named_parameters())


def test_gradient_that_is_not_finite(llama, build, all_cases, batch):
    """A finite loss may have an infinite gradient; the step is not made."""
    method = build(llama, next(c for c in all_cases if c.id == "prompt-tuning-after"), perturbed=False)
    root = torch.zeros((), requires_grad=True)

    def loss_of(rows):
        zero = (method.table.sum() * 0 + root.detach()).clamp(min=0)
        return next_token(llama, method, batch) + zero.sqrt()  # d sqrt(x)/dx at 0

    outcome = fit(llama, method, loss_of, [1] * 4, lambda: DevScore((0.0,), "s", 0.0), Optimization(4, 1e-2))
    assert outcome.stopped == "nan" and outcome.step == 0
    assert all(p.isfinite().all() for p in method.parameters())


def test_dev_score_that_is_not_finite_is_never_the_best(llama, build, all_cases, batch):
    """The first evaluation would otherwise be the best for ever: nothing compares with NaN."""
    method = build(llama, next(c for c in all_cases if c.id == "prompt-tuning-after"), perturbed=False)
    scores = iter([(0.5, float("nan")), (0.5, -1.0), (float("nan"), -0.5), (0.4, -0.5)])
    outcome = fit(
        llama,
        method,
        lambda rows: next_token(llama, method, batch),
        [1] * 4,
        lambda: DevScore(next(scores), "s", 0.0),
        Optimization(4, 1e-2, eval_every=1),
    )
    assert outcome.best_step == 2
