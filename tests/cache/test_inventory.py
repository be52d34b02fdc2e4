"""The cache's entries are listed with their sizes, and removed where nobody uses them."""

from __future__ import annotations

import mmap
import os
import shutil

import pytest
from filelock import FileLock

from softprompt.cache.folders import builder
from softprompt.cache.inventory import chosen, clear, entries
from softprompt.errors import SoftPromptError

MODEL, A, B, C = "smollm2-135m-instruct-1", *(f"kv/{letter * 32}" for letter in "abc")


@pytest.fixture
def root(tmp_path):
    """A cache of a converted model and of two folders of keys and values, and a link out of it."""
    root = tmp_path / "cache"
    for name, size in ((MODEL, 3000), (A, 200), (B, 1000)):
        (root / name).mkdir(parents=True)
        (root / name / "part.safetensors").write_bytes(b"x" * size)
        (root / name / "part.json").write_bytes(b"y" * 10)
        os.utime(root / name / "part.json", (5e8, 5e8))
        os.utime(root / name / "part.safetensors", (1e9, 1e9))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("keep me")
    (root / "linked").symlink_to(elsewhere)
    (root / f"{A}/out").symlink_to(elsewhere)
    (root / C).symlink_to(elsewhere)
    return root


def test_entries_with_sizes_and_ages(root):
    listed = entries(root)
    assert [(e.name, e.bytes, e.files, e.content) for e in listed] == [
        (MODEL, 3010, 2, "model"),
        (B, 1010, 2, "inputs"),
        (A, 210, 2, "inputs"),  # what the link leads to is not counted
    ]
    assert all(e.used == 1e9 and e.in_use is None for e in listed)
    assert entries(root / "not there") == []


def test_names_choose(root):
    listed = entries(root)
    assert {e.name for e in chosen(["kv"], listed)} == {A, B}
    assert [e.name for e in chosen([f"{MODEL}/"], listed)] == [MODEL] and chosen([], listed) == listed
    for wrong in ("linked", C, "../elsewhere", "/", "model"):
        with pytest.raises(SoftPromptError, match="unknown cache entry"):
            chosen([wrong], listed)


def test_cleared_without_what_links_lead_to(root, tmp_path):
    freed = [clear(entry) for entry in entries(root)]
    assert sorted(freed) == [210, 1010, 3010] and entries(root) == []
    assert (tmp_path / "elsewhere/precious").read_text() == "keep me"
    assert (root / "linked").is_symlink()


def test_an_entry_that_became_a_link_stays(root, tmp_path):
    (entry,) = chosen([B], entries(root))
    (root / B).rename(tmp_path / "moved")
    (root / B).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SoftPromptError, match="is a link"):
        clear(entry)
    assert (tmp_path / "elsewhere/precious").exists()


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="mapped files are read from /proc")
def test_not_while_a_file_is_mapped(root):
    path = root / f"{B}/part.safetensors"
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (entry,) = chosen([B], entries(root))
    assert entry.in_use == f"process {os.getpid()} has it open"
    with pytest.raises(SoftPromptError, match=f"process {os.getpid()}"):
        clear(entry)
    assert path.exists()
    mapped.close()
    assert clear(entry) == 1010 and not path.exists()


def test_not_while_a_run_computes_it(root):
    (entry,) = chosen([A], entries(root))
    with builder(entry.path), pytest.raises(SoftPromptError, match="computing"):
        clear(entry)
    assert (entry.path / "part.json").exists()


def test_a_run_that_waits_for_a_folder_that_is_cleared_makes_it_again(root, monkeypatch):
    """filelock opens a lock again that was removed while it waited, and raises where its folder is gone."""
    folder, times = root / A, [1]

    class Cleared(FileLock):
        def acquire(self, *args, **options):
            if times:
                times.pop()
                shutil.rmtree(folder)
                raise FileNotFoundError(folder / "lock")
            return super().acquire(*args, **options)

    monkeypatch.setattr("softprompt.cache.folders.FileLock", Cleared)
    with builder(folder) as alone:
        assert alone and [path.name for path in folder.iterdir()] == ["lock"]


def test_not_while_a_model_is_converted(root):
    working = root / f"{MODEL}.k3x"
    working.mkdir()
    (working / "model.safetensors").write_bytes(b"half")
    (entry,) = chosen([f"{MODEL}.k3x"], entries(root))
    with pytest.raises(SoftPromptError, match="converting"):
        clear(entry)
    os.utime(working, (1e9, 1e9))  # what a killed conversion left
    assert clear(entry) == 4


def test_folders_of_others_are_no_entries(root):
    """SOFTPROMPT_CACHE may name a folder with other content, as HF_HOME inside it."""
    others = (
        "hub/models--a--b",
        "thesis",
        "smollm2-135m-instruct-mine",
        "kv/notes",
        f"kv/{'D' * 32}",
        "a" * 32,
    )
    for name in others:
        (root / name).mkdir(parents=True)
        (root / name / "precious").write_text("keep me")
    assert {entry.name for entry in entries(root)} == {MODEL, A, B}
    for entry in entries(root):
        clear(entry)
    assert all((root / name / "precious").exists() for name in others)
