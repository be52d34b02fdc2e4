"""A cache on disk: shared, named by all it depends on, whole or not there, and never over its budget."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from softprompt import files
from softprompt.cache import disk
from softprompt.cache.place import Place, builder, default_root, distinct, key_of
from softprompt.data.collate import collate
from softprompt.errors import SoftPromptError


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(disk, "SHARD_BYTES", 3000)
    monkeypatch.setattr(disk, "BATCH_TOKENS", 12)


@pytest.fixture
def prefills(llama, monkeypatch):
    """The rows that went through the model, call by call."""
    calls: list[int] = []
    original = llama.prefill
    monkeypatch.setattr(
        llama, "prefill", lambda batch, *a: calls.append(batch.size) or original(batch, *a), raising=False
    )
    return calls


def folders(place: Place) -> list[Path]:
    return sorted(path for path in place.root.iterdir() if (path / disk.INDEX).exists())


def same(store, examples, lm, close) -> None:
    """What the store holds is what the plain model computes now."""
    context = store.cache(examples).context(range(len(examples)), lm)
    fresh = lm.prefill(collate(examples, targets=False))
    seen = fresh.mask[:, None, :, None]
    assert torch.equal(context.mask, fresh.mask)
    for kept, layer in zip(context.layers, fresh.layers, strict=True):
        close(kept.key * seen, layer.key * seen)
        close(kept.value * seen, layer.value * seen)


# --- sharing and names ---


def test_a_second_run_computes_nothing(llama, examples, place, prefills, close):
    disk.open_or_build(place, llama, examples)
    first = len(prefills)
    assert first > 1 and len(list(folders(place)[0].glob("*.safetensors"))) > 1
    other = [examples[k] for k in (4, 2, 0, 5, 1, 3, 3, 0)]  # another seed's order, and rows that repeat
    store = disk.open_or_build(place, llama, other)
    assert len(prefills) == first and len(folders(place)) == 1
    same(store, other, llama, close)


def test_nothing_is_copied_before_a_batch_is_made(llama, examples, place):
    store = disk.open_or_build(place, llama, examples)
    number = len(distinct(examples)) - 1
    assert store.row(number)[0].data_ptr() == store.row(number)[0].data_ptr()


def test_the_name_follows_all_that_the_numbers_depend_on(new_lm, llama, encoded):
    rows = encoded()
    names = {key_of(llama, distinct(rows), "auto")}
    assert key_of(new_lm("llama"), distinct(rows[::-1]), "auto") in names  # the same model, in any order
    names.add(key_of(llama, distinct(rows), "int8"))
    names.add(key_of(llama, distinct(encoded(start=11)), "auto"))  # another template
    names.add(key_of(llama, distinct(rows[:-1]), "auto"))
    names.add(key_of(new_lm("llama", seed=1), distinct(rows), "auto"))
    names.add(
        key_of(
            new_lm("llama", rope_parameters={"rope_type": "default", "rope_theta": 5e3}),
            distinct(rows),
            "auto",
        )
    )
    halved, nudged, retokenized = (new_lm("llama") for _ in range(3))
    halved.model.to(torch.bfloat16)
    names.add(key_of(halved, distinct(rows), "auto"))
    with torch.no_grad():
        nudged.embed(torch.tensor([0]))  # the table itself is what changes
        nudged.model.get_input_embeddings().weight[12, 3] += 1  # one number of one word
    names.add(key_of(nudged, distinct(rows), "auto"))
    retokenized.tokenizer.add_tokens(["<more>"])
    names.add(key_of(retokenized, distinct(rows), "auto"))
    assert len(names) == 9


def test_ids_cannot_run_into_each_other(llama, encoded):
    one, other = encoded((2, 4), start=10), encoded((3, 3), start=10)
    for row, ids in zip([*one, *other], [(1, 2), (3, 4, 5, 6), (1, 2, 3), (4, 5, 6)], strict=True):
        row.input_ids = ids
    assert key_of(llama, distinct(one), "auto") != key_of(llama, distinct(other), "auto")


def test_another_format_version_is_another_cache(llama, examples, monkeypatch):
    before = key_of(llama, distinct(examples), "auto")
    monkeypatch.setattr("softprompt.cache.place.FORMAT", 2)
    assert key_of(llama, distinct(examples), "auto") != before


def test_the_folder_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv("SOFTPROMPT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "softprompt" / "kv"
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "mine"))
    assert Place().root == tmp_path / "mine" / "kv"


# --- what is damaged or half written ---


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES = {"flipped": flip, "cut": cut, "gone": Path.unlink, "empty": lambda path: path.write_bytes(b"")}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_computed_again_and_said(llama, examples, place, prefills, close, damage):
    disk.open_or_build(place, llama, examples)
    whole, prefills[:] = sum(prefills), []
    victim = sorted(folders(place)[0].glob("*.safetensors"))[1]
    DAMAGES[damage](victim)
    said: list[str] = []
    store = disk.open_or_build(place, llama, examples, say=said.append)
    assert any("damaged" in text and victim.name in text for text in said)
    assert 0 < sum(prefills) < whole  # that file alone
    same(store, examples, llama, close)
    said.clear()
    disk.open_or_build(place, llama, examples, say=said.append)
    assert not said


@pytest.mark.parametrize("content", ["", "{", "[]", '{"shards": [{}]}', '{"shards": 3}'])
def test_a_damaged_index_is_written_again(llama, examples, place, close, content):
    disk.open_or_build(place, llama, examples)
    (folders(place)[0] / disk.INDEX).write_text(content)
    said: list[str] = []
    same(disk.open_or_build(place, llama, examples, say=said.append), examples, llama, close)
    assert any("damaged" in text for text in said)


def test_a_cache_that_was_copied_is_whole(llama, examples, place, prefills):
    """Other times, the same contents."""
    disk.open_or_build(place, llama, examples)
    built = len(prefills)
    for path in folders(place)[0].glob("*.safetensors"):
        os.utime(path, (1, 1))
    said: list[str] = []
    disk.open_or_build(place, llama, examples, say=said.append)
    assert len(prefills) == built and not said


def test_a_build_that_stops_goes_on(llama, examples, place, prefills, close, monkeypatch):
    """Stopped after a file: no index, nothing that is read; the next run makes the others."""
    disk.open_or_build(Place(place.root / "whole"), llama, examples)
    whole, prefills[:] = sum(prefills), []
    original, written = files.write_tensors, []

    def stopped(path, tensors):
        if written:
            (path.parent / f".{path.name}.half").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path)
        original(path, tensors)

    monkeypatch.setattr(files, "write_tensors", stopped)
    with pytest.raises(KeyboardInterrupt):
        disk.open_or_build(place, llama, examples)
    folder = written[0].parent
    assert not disk.is_stored(folder)
    monkeypatch.setattr(files, "write_tensors", original)
    prefills.clear()
    same(disk.open_or_build(place, llama, examples), examples, llama, close)
    assert 0 < sum(prefills) - len(examples) < whole  # but for the batch of `same`
    assert not list(folder.glob(".*"))


def test_a_process_that_is_killed_leaves_nothing_half_read(model_folder, tmp_path, encoded, close):
    """A real process, killed without warning while it writes."""
    import softprompt

    place, rows = Place(tmp_path / "kv", limit=10**9), encoded(range(2, 30))
    script = f"""
import time, types, softprompt
from softprompt import files
from softprompt.cache import disk
from softprompt.cache.place import Place
from pathlib import Path
disk.SHARD_BYTES, disk.BATCH_TOKENS = 3000, 12
original = files.write_tensors
def slow(path, tensors):
    original(path, tensors)
    print("wrote", path, flush=True)
    time.sleep(0.05)
files.write_tensors = slow
rows = [types.SimpleNamespace(input_ids=ids, prompt=0, places=(), value=None, target_ids=(),
        rendered=types.SimpleNamespace(input="")) for ids in {[row.input_ids for row in rows]!r}]
lm = softprompt.load({str(model_folder)!r}, dtype="float32")
disk.open_or_build(Place(Path({str(place.root)!r}), 10**9), lm, rows)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = place.root.iterdir()
    made = set(folder.glob("*.safetensors"))
    assert len(made) >= 2 and not disk.is_stored(folder)
    times = {path: path.stat().st_mtime_ns for path in made}
    lm = softprompt.load(str(model_folder), dtype="float32")
    same(disk.open_or_build(place, lm, rows), rows, lm, close)
    assert disk.is_stored(folder) and {p: p.stat().st_mtime_ns for p in made} == times


# --- room ---


def used(folder: Path, seconds: float) -> None:
    os.utime(folder, (seconds, seconds))


def test_the_longest_unused_go_first(llama, encoded, tmp_path):
    roomy = Place(tmp_path / "kv", limit=10**9)
    stores = [disk.open_or_build(roomy, llama, encoded((9, 8), start=start)) for start in (10, 30, 50)]
    names = [roomy.folder(key_of(llama, distinct(encoded((9, 8), start=s)), "auto")) for s in (10, 30, 50)]
    for folder, when in zip(names, (2000, 1000, 3000), strict=True):
        used(folder, when)
    one = max(held.bytes for held in roomy.held())
    said: list[str] = []
    tight = Place(roomy.root, limit=3 * one)
    disk.open_or_build(tight, llama, encoded((9, 8), start=70), say=said.append)
    assert not names[1].exists() and names[0].exists() and names[2].exists()
    assert len(said) == 1 and str(names[1]) in said[0]
    disk.open_or_build(tight, llama, encoded((9, 8), start=10))  # it is used again, and so stays
    disk.open_or_build(tight, llama, encoded((9, 8), start=80))
    assert names[0].exists() and not names[2].exists()
    assert sum(held.bytes for held in tight.held()) <= 3 * one
    # a reader keeps what it has mapped
    assert torch.isfinite(stores[1].row(0)[0]).all()


def test_a_cache_that_is_being_built_is_not_removed(llama, encoded, tmp_path):
    place = Place(tmp_path / "kv", limit=1)
    other = place.root / "other"
    with builder(other):
        (other / "00000.safetensors").write_bytes(b"x" * 100)
        assert place.make_room(place.root / "mine", 1) == []
    assert place.make_room(place.root / "mine", 1) == [other] and not other.exists()


def test_the_budget_is_a_share_of_what_is_free_or_held(tmp_path, monkeypatch):
    import shutil
    from types import SimpleNamespace

    place = Place(tmp_path / "not" / "there")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert place.budget() == 400
    (place.root / "one").mkdir(parents=True)
    (place.root / "one" / "00000.safetensors").write_bytes(b"x" * 500)
    assert place.budget() == 600
    assert Place(place.root, limit=7).budget() == 7


def test_a_full_disk_leaves_nothing_behind(llama, examples, place, monkeypatch):
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SoftPromptError, match="disk is full"):
        disk.open_or_build(place, llama, examples)
    assert list(place.root.iterdir()) == []


def test_two_builders_take_turns(llama, examples, place, close, tmp_path):
    """The second waits, and reads what the first has made."""
    import threading

    said: list[str] = []
    folder = place.folder(key_of(llama, distinct(examples), "auto"))
    stores = []

    def second():
        stores.append(disk.open_or_build(place, llama, examples, say=said.append))

    with builder(folder):
        thread = threading.Thread(target=second)
        thread.start()
        while not said:
            time.sleep(0.01)
        assert "waiting" in said[0] and not disk.is_stored(folder)
    thread.join()
    same(stores[0], examples, llama, close)
    assert json.loads((folder / disk.INDEX).read_text())["shards"]
