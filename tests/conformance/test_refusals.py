"""Contract 8: every limit is an error that names the value, the reason and what works instead."""

from __future__ import annotations

import errno
import json

import pytest
import torch
from safetensors import SafetensorError

from softprompt import artifact, files, methods
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection
from softprompt.objectives import injection_for, next_token
from softprompt.train import DevScore, Optimization, fit


@pytest.fixture
def refused():
    """`refused(call, *words)`: the call fails with what, and a fix, that hold all the words."""

    def check(call, *words: str) -> SoftPromptError:
        with pytest.raises(SoftPromptError) as caught:
            call()
        error = caught.value
        assert error.fix or "did you mean" in error.what, f"says no way out: {error}"
        for word in words:
            assert word in str(error), f"{word!r} is not in: {error}"
        return error

    return check


@pytest.fixture
def saved(llama, build, all_cases, manifest_for, tmp_path):
    """A saved prompt-tuning artifact of two prompts."""
    case = next(c for c in all_cases if c.id == "prompt-tuning-after")
    return artifact.save(tmp_path / "saved", build(llama, case), llama, manifest_for(llama, case))


# --- names and options ---


def test_unknown_method(llama, setting, refused):
    refused(lambda: methods.build("prefx-tuning", setting(llama)), "'prefx-tuning'", "'prefix-tuning'")


def test_unknown_option_of_every_method(llama, setting, refused):
    for name, method in methods.METHODS.items():
        for option in list(method.options())[:1]:
            wrong = option[:-1] + "q"
            refused(lambda n=name, w=wrong: methods.build(n, setting(llama), {w: 3}), wrong, f"'{option}'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"init": "labls"}, ["init='labls'", "'labels'"]),
        ({"placement": "behind"}, ["placement='behind'", "'before'"]),
        ({"length": "many"}, ["length='many'"]),
        ({"length": 0}, ["length=0"]),
        ({"init": "text"}, ["method.text"]),
        ({"init": "artifact"}, ["method.artifact"]),
    ],
)
def test_values_of_options(llama, setting, refused, options, words):
    refused(lambda: methods.build("prompt-tuning", setting(llama), options), *words)


@pytest.mark.parametrize("name", ["generated-prompt", "generated-prefix"])
def test_generated_sources(llama, setting, refused, name):
    refused(lambda: methods.build(name, setting(llama), {"source": "encoder"}), "method.encoder")
    refused(lambda: methods.build(name, setting(llama), {"source": "hidden", "layer": 9}), "layer=9", "3")
    missing = {"source": "encoder", "encoder": "/nowhere/at/all"}
    refused(lambda: methods.build(name, setting(llama), missing), "/nowhere/at/all", "embeddings")
    method = methods.build(name, setting(llama))
    refused(lambda: method(torch.tensor([0])), "needs the input")


def test_inits_without_material(llama, setting, refused):
    bare = setting(llama, labels=(), examples=(), examples_by_prompt={})
    refused(lambda: methods.build("prompt-tuning", bare, {"init": "labels"}), "init=vocab")
    refused(lambda: methods.build("prefix-tuning", bare, {"init": "context"}), "init=vocab")
    refused(lambda: methods.build("llama-adapter", bare, {"init": "random"}), "init=random", "init=vocab")


def test_unknown_prompt(saved, refused):
    assert saved.index("fact") == 1
    refused(lambda: saved.index("fakt"), "'fakt'", "'fact'")
    refused(lambda: saved.index(None), "2 prompts", "joke, fact")


def test_rows_that_do_not_fit(llama, build, all_cases, batch, refused):
    method = build(llama, all_cases[0])
    two = method(torch.tensor([0, 1]))
    refused(lambda: llama.logits(batch, two), "2 rows", "batch of 4")
    assert llama.logits(batch, method(torch.tensor([1]))).shape[0] == 4


# --- the base ---


def test_another_base_is_refused(new_lm, saved, refused, batch):
    other = new_lm("llama", seed=9)
    error = refused(lambda: saved.method(other), "another base model", "weights")
    assert "config" not in error.why and "--other-base" in error.fix
    method = saved.method(other, other_base=True)  # unless the user insists
    assert other.logits(batch, injection_for(other, method, batch)).isfinite().all()


def test_another_base_of_another_shape_is_refused_even_then(lms, new_lm, saved, refused, batch):
    wider = new_lm("llama", hidden_size=48)
    refused(lambda: saved.method(wider), "another base model", "config")
    refused(lambda: saved.method(wider, other_base=True), "do not fit")
    refused(lambda: saved.method(wider, other_base=True, trainable=True), "do not fit")


# --- damage ---


def test_damaged_artifacts(saved, refused):
    for name in saved.manifest["files"]:
        path = saved.path / name
        whole = path.read_bytes()
        for broken in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
            path.write_bytes(broken)
            refused(lambda: artifact.load(saved.path), name, "damaged")
        path.unlink()
        refused(lambda: artifact.load(saved.path), name, "missing")
        path.write_bytes(whole)
    assert artifact.load(saved.path).prompts == ("joke", "fact")


def test_damaged_manifests(saved, refused, tmp_path):
    path = saved.path / artifact.MANIFEST
    whole = path.read_text()
    for broken in (whole[:100], "", "[]", "{}", json.dumps({"schema": 1})):
        path.write_text(broken)
        refused(lambda: artifact.load(saved.path), artifact.MANIFEST, "damaged")
    path.write_text(json.dumps({**json.loads(whole), "schema": artifact.SCHEMA + 1}))
    refused(lambda: artifact.load(saved.path), f"schema {artifact.SCHEMA + 1}", "upgrade")
    path.unlink()
    refused(lambda: artifact.load(saved.path), "no tuned prompt")
    (saved.path / "checkpoint").mkdir()
    refused(lambda: artifact.load(saved.path), "has not finished", "again to go on")
    refused(lambda: artifact.load(tmp_path / "nothing"), "no tuned prompt")


def test_truncated_tensors(saved, tmp_path, refused):
    whole = (saved.path / "state.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in (0, 4, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(lambda: files.read_tensors(path), "cut.safetensors", "damaged")
    refused(lambda: files.read_tensors(tmp_path / "absent"), "absent")


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
            raise files._unwritable(path, OSError(errno.ENOSPC, "full"))
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


def test_plain_injection_is_no_error(llama, batch, close):
    assert torch.equal(llama.logits(batch, Injection()), llama.logits(batch))
