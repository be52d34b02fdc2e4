"""The folder that is served changes under the server: links move, versions are replaced, damaged and removed,
and artifacts have other folders beside them."""

from __future__ import annotations

import errno
import inspect
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from softprompt._system import files
from softprompt.artifacts import artifact as artifacts
from softprompt.artifacts.manifest import text_of
from softprompt.errors import SoftPromptError
from softprompt.serve import bases, file_stamps
from softprompt.serve.registry import Registry
from softprompt.serve.request import BrokenPrompt, UnknownPrompt


def listed(found: Registry) -> list[str]:
    return [name for entry in found.names() if entry.served for name in entry.models]


def lead(link: Path, target: str) -> None:
    """Make a link lead elsewhere, as deploying tools do: a new one is renamed onto it."""
    new = link.with_name(".new")
    new.symlink_to(target)
    new.rename(link)


def flip(folder: Path) -> None:
    file = folder / "prompt.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 255
    file.write_bytes(bytes(data))


def same_times(new: Path, old: Path) -> None:
    """Give the files of one folder the time stamps of another's."""
    for file in new.iterdir():
        if (old / file.name).is_file():
            found = (old / file.name).stat()
            os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.fixture
def releases(llama, publish, tmp_path):
    """Two releases of the same names, and what each of them is."""
    for i in (1, 2):
        publish(llama, tmp_path / f"releases/{i}/x", seed=i)
        publish(llama, tmp_path / f"releases/{i}/many", seed=i, prompts=("joke", "fact"))
    publish(llama, tmp_path / "releases/2/new", seed=3)
    return [Registry(tmp_path / f"releases/{i}", llama).get("x").fingerprint for i in (1, 2)]


def test_a_link_to_the_served_folder_is_followed_when_it_moves(llama, releases, tmp_path):
    lead(tmp_path / "current", "releases/1")
    found = Registry(tmp_path / "current", llama)
    assert found.get("x").fingerprint == releases[0] and listed(found) == ["many:joke", "many:fact", "x"]
    lead(tmp_path / "current", "releases/2")
    assert found.get("x").fingerprint == releases[1] and "new" in listed(found)
    (tmp_path / "current").unlink()
    assert listed(found) == []
    with pytest.raises(UnknownPrompt):
        found.get("x")
    lead(tmp_path / "current", "releases/1")
    assert found.get("x").fingerprint == releases[0]
    lead(tmp_path / "current", "releases/1/x")  # an artifact of its own, under the name that was given
    assert listed(found) == ["current"] and found.get("current").fingerprint == releases[0]


def test_a_link_in_a_path_to_the_served_folder_too(llama, releases, tmp_path):
    (tmp_path / "deep").mkdir()
    lead(tmp_path / "now", "releases")
    found = Registry(tmp_path / "deep/../now/1", llama)
    assert found.get("x").fingerprint == releases[0]
    (tmp_path / "other").mkdir()
    (tmp_path / "releases/2").rename(tmp_path / "other/1")
    lead(tmp_path / "now", "other")
    assert found.get("x").fingerprint == releases[1]


@pytest.mark.parametrize("how", ["in place", "renamed", "folder renamed"])
def test_a_version_of_the_same_size_and_time_is_seen(how, llama, publish, tmp_path):
    old, new = publish(llama, tmp_path / "root/p", seed=1), publish(llama, tmp_path / "next/p", seed=2)
    wanted = Registry(tmp_path, llama).get("next/p").fingerprint
    same_times(new, old)
    found = Registry(tmp_path / "root", llama)
    assert found.get("p").fingerprint != wanted and listed(found) == ["p"]
    names = ("prompt.safetensors", "state.safetensors", "softprompt.json")
    assert [(new / name).stat().st_size for name in names] == [(old / name).stat().st_size for name in names]
    times = [(old / name).stat().st_mtime_ns for name in names]
    if how == "folder renamed":
        old.rename(tmp_path / "gone")
        new.rename(old)
    for name in names if how != "folder renamed" else ():
        if how == "renamed":
            (new / name).rename(old / name)
            continue
        shutil.copyfile(new / name, old / name)
        shutil.copystat(new / name, old / name)
    assert [(old / name).stat().st_mtime_ns for name in names] == times
    assert found.get("p").fingerprint == wanted


def test_a_change_within_one_step_of_the_systems_clock_is_seen(llama, publish, tmp_path, monkeypatch):
    """A second write that has the time stamps of the first cannot come any more when the first is read."""
    waits = []
    file = tmp_path / "x"
    file.write_text("1")
    changed = file.stat().st_ctime
    for age, count in ((0.001, 1), (-0.001, 2), (2 * file_stamps.STEP, 2), (60.0, 2), (-60.0, 2)):
        now = SimpleNamespace(time=lambda age=age: changed + age, sleep=waits.append)
        monkeypatch.setattr(file_stamps, "time", now)
        assert file_stamps.settled(lambda: (file_stamps.stamp_of(file), None)) == (
            file_stamps.stamp_of(file),
            None,
        )
        assert len(waits) == count
    assert all(wait >= file_stamps.STEP for wait in waits)


def test_a_damaged_new_version_leaves_its_place_to_the_last_one_and_the_log_says_so(
    llama, publish, tmp_path, caplog
):
    caplog.set_level(logging.INFO, logger="softprompt.serve")
    publish(llama, tmp_path / "p", seed=1, prompts=("joke", "fact"))
    found = Registry(tmp_path, llama)
    good = found.get("p:joke")
    assert not good.outdated and found.outdated == 0
    publish(llama, tmp_path / "p", seed=2, prompts=("joke", "fact"))
    flip(tmp_path / "p")
    for name in ("p:joke", "p:fact", "p:joke"):
        loaded = found.get(name)
        assert loaded.tuned is good.tuned and loaded.outdated
    output = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(output) == 1 and "'p'" in output[0].getMessage() and "hash" in output[0].getMessage()
    assert found.outdated == 1
    # a table whose new manifest cannot be read is listed and described as the one that answers
    (tmp_path / "p/softprompt.json").write_text("{")
    assert found.get("p:joke").tuned is good.tuned
    assert listed(found) == ["p:joke", "p:fact"] and found.describe("p").prompts == ("joke", "fact")
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 2
    publish(llama, tmp_path / "p", seed=2, prompts=("joke", "fact"))
    assert not found.get("p:joke").outdated and found.outdated == 0
    assert "on disk is served again" in caplog.text
    with pytest.raises(BrokenPrompt):
        flip(tmp_path / "p")
        Registry(tmp_path, llama).get("p:joke")  # there is no last one after a restart


def test_a_link_that_moves_to_a_damaged_version_answers_as_before(llama, publish, tmp_path, caplog):
    for i in (1, 2):
        publish(llama, tmp_path / f"v{i}", seed=i)
    lead(tmp_path / "latest", "v1")
    found = Registry(tmp_path, llama)
    good = found.get("latest")
    flip(tmp_path / "v2")
    with pytest.raises(BrokenPrompt):
        found.get("v2")
    lead(tmp_path / "latest", "v2")
    assert found.get("latest").fingerprint == good.fingerprint and found.get("latest").outdated
    assert caplog.text.count("cannot be served") == 1 and "latest" in listed(found)
    assert not found.get("v1").outdated
    publish(llama, tmp_path / "v1", seed=3)  # what the link gave is no longer loaded, so it is not given
    found.get("v1")
    with pytest.raises(BrokenPrompt):
        found.get("latest")
    publish(llama, tmp_path / "v2", seed=2)
    assert not found.get("latest").outdated


def too_many_files(*_):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def fails(error: Exception):
    def failing(*_, **__):
        raise error

    return failing


MOMENTARY = {
    "no file can be opened": (files, "_open_now", too_many_files),
    "no file of vectors can be opened": (
        safetensors.torch,
        "load_file",
        fails(
            FileNotFoundError("No such file or directory: x")
        ),  # all that safetensors says, whatever it was
    ),
    "a disk that does not answer": (artifacts, "sha256", fails(OSError(errno.EIO, "Input/output error"))),
    "no memory": (artifacts.Artifact, "check_base", fails(MemoryError())),
    "no memory on the device": (
        artifacts.Artifact,
        "check_base",
        fails(torch.OutOfMemoryError("CUDA out of memory")),
    ),
}


@pytest.mark.parametrize("how", MOMENTARY)
def test_a_momentary_failure_is_not_remembered(how, llama, publish, tmp_path, monkeypatch):
    publish(llama, tmp_path / "p")
    found = Registry(tmp_path, llama)
    with monkeypatch.context() as failing:
        failing.setattr(*MOMENTARY[how])
        for _ in range(2):
            list(found.names())
            with pytest.raises(BrokenPrompt):
                found.get("p")
    assert listed(found) == ["p"] and found.describe("p").problem is None
    assert not found.get("p").outdated


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), RecursionError()])
def test_what_the_content_proves_is_remembered(error, llama, publish, tmp_path, monkeypatch):
    publish(llama, tmp_path / "p")
    found = Registry(tmp_path, llama)
    with monkeypatch.context() as failing:
        failing.setattr(artifacts.Artifact, "check_base", fails(error))
        with pytest.raises(BrokenPrompt):
            found.get("p")
    with pytest.raises(BrokenPrompt, match="p"):  # the files are as they were
        found.get("p")


@pytest.mark.parametrize("ask", ["get", "describe"])
def test_a_name_by_which_nothing_answers_is_not_counted_as_outdated(ask, llama, publish, tmp_path):
    for name in ("p", "q"):
        publish(llama, tmp_path / name, seed=1, prompts=("joke", "fact"))
    publish(llama, tmp_path / "large", seed=1, prompts=("a", "b", "c"))
    publish(llama, tmp_path / "other", seed=1, prompts=("a", "b", "c"))
    size = Registry(tmp_path, llama).get("p:joke").bytes
    found = Registry(tmp_path, llama, max_bytes=4 * size)
    for name in ("p", "q"):
        found.get(f"{name}:joke")
        flip(tmp_path / name)
        assert found.get(f"{name}:joke").outdated
    assert found.outdated == 2
    with pytest.raises(UnknownPrompt):  # of an artifact that is there
        found.get("q:other")
    assert found.outdated == 2
    shutil.rmtree(tmp_path / "q")
    with pytest.raises(UnknownPrompt):
        getattr(found, ask)("q:fact")
    assert found.outdated == 1
    for name in ("large:a", "other:a"):  # which leave no room for the last good version
        found.get(name)
    with pytest.raises(BrokenPrompt):
        found.get("p:joke")
    assert found.outdated == 0


def test_an_empty_folder_picks_up_what_arrives(llama, publish, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (output,) = bases.survey(root).notes(llama)
    assert output.startswith("no tuned prompts in")
    found = Registry(root, llama)
    assert listed(found) == []
    publish(llama, root / "p", seed=1)
    first = found.get("p").fingerprint
    shutil.rmtree(root)
    assert listed(found) == []
    with pytest.raises(UnknownPrompt):
        found.get("p")
    publish(llama, root / "p", seed=2)
    assert listed(found) == ["p"] and found.get("p").fingerprint != first


def empty_folder(path: Path) -> None:
    path.mkdir()


BAD = {
    "a folder": empty_folder,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "nothing in it": lambda path: path.write_text(""),
    "no JSON": lambda path: path.write_text("{"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "nested too deep": lambda path: path.write_text("[" * 100_000),
    "a long number": lambda path: path.write_text('{"schema": ' + "1" * 5000 + "}"),
    "a list": lambda path: path.write_text("[]"),
    "another kind": lambda path: path.write_text('{"base": {"name": "x", "fingerprint": {"weights": {}}}}'),
    "of a newer version": lambda path: path.write_text('{"schema": 99}'),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_one_bad_artifact_stops_nobody(make, llama, publish, tmp_path):
    publish(llama, tmp_path / "a/good")
    publish(llama, tmp_path / "z")
    (tmp_path / "bad").mkdir()
    make(tmp_path / "bad/softprompt.json")
    count, unfit = bases.survey(tmp_path).notes(llama)
    assert count.startswith("2 prompts in") and unfit.startswith("1 of 3 artifacts") and "bad (it" in unfit
    found = Registry(tmp_path, llama)
    assert listed(found) == ["a/good", "z"]
    assert found.get("z") and found.describe("bad").problem
    with pytest.raises(BrokenPrompt):
        found.get("bad")
    shutil.rmtree(tmp_path / "bad")
    publish(llama, tmp_path / "bad")
    assert found.get("bad") and listed(found) == ["a/good", "bad", "z"]


@pytest.mark.parametrize("name", ["prompt.safetensors", "state.safetensors"])
@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device", "a link to nothing", "nothing in it"])
def test_a_bad_file_of_vectors_stops_nobody(name, kind, llama, publish, tmp_path):
    publish(llama, tmp_path / "good")
    publish(llama, tmp_path / "bad")
    (tmp_path / "bad" / name).unlink()
    BAD[kind](tmp_path / "bad" / name)
    found = Registry(tmp_path, llama)
    with pytest.raises(BrokenPrompt):
        found.get("bad")
    assert found.get("good") and listed(found) == ["good"]


def test_half_a_character_in_a_prompts_name_is_not_listed(llama, publish, tmp_path):
    publish(llama, tmp_path / "p", prompts=("a", "b"))
    manifest = tmp_path / "p/softprompt.json"
    output = json.loads(manifest.read_text())
    output["prompts"] = ["a", "\ud800"]
    del output["digest"]
    output["schema"] = 1
    manifest.write_text(json.dumps(output))
    assert listed(Registry(tmp_path, llama)) == []
    output["prompts"] = ["a", "c"]
    manifest.write_text(
        text_of({**output, "schema": 2}).replace('"c"', '"d"')
    )  # changed after it was written
    assert listed(Registry(tmp_path, llama)) == []


def test_folders_in_each_other_deeper_than_python_calls_are_walked(llama, publish, tmp_path):
    publish(llama, tmp_path / "good")
    (tmp_path / Path(*["d"] * 300)).mkdir(parents=True)
    found, before = Registry(tmp_path, llama), sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(len(inspect.stack(0)) + 100)
        assert listed(found) == ["good"]
    finally:
        sys.setrecursionlimit(before)


def test_a_folder_that_cannot_be_read_is_refused_at_the_start(llama, tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("softprompt.serve.registry.os.listdir", refused)
    with pytest.raises(SoftPromptError, match="cannot read"):
        Registry(tmp_path, llama)


def test_memory_of_what_is_known_of_names_is_bounded(llama, publish, tmp_path, monkeypatch):
    monkeypatch.setattr("softprompt.serve.versions.KEPT", 3)
    found = Registry(tmp_path, llama)
    for i in range(5):
        publish(llama, tmp_path / f"p{i}")
        found.get(f"p{i}")
        publish(llama, tmp_path / f"bad{i}")
        flip(tmp_path / f"bad{i}")
        with pytest.raises(BrokenPrompt):
            found.get(f"bad{i}")
    held = found._versions
    assert {len(kept) for kept in (held._loaded, held._verified, held._problems, held._answered)} == {3}
