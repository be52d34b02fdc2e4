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

from softprompt._system import files
from softprompt.cache import Cache, KeyValues, disk_store
from softprompt.cache.folders import CacheFolder, builder, default_root, entry_of
from softprompt.cache.keys import name_of_ids
from softprompt.cache.shards import missing
from softprompt.data.collate import collate
from softprompt.errors import SoftPromptError


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(disk_store, "SHARD_BYTES", 3000)
    monkeypatch.setattr(disk_store, "BATCH_TOKENS", 12)


def name_of(example) -> str:
    return name_of_ids(example.input_ids)


def names_of(examples) -> list[str]:
    return [name_of(example) for example in examples]


@pytest.fixture
def prefills(llama, monkeypatch):
    """The rows that went through the model, call by call."""
    calls: list[int] = []
    original = llama.prefill
    monkeypatch.setattr(
        llama, "prefill", lambda batch, *a: calls.append(batch.size) or original(batch, *a), raising=False
    )
    return calls


def shards(place: CacheFolder) -> list[Path]:
    """Files of rows that have their entry."""
    return sorted(path for path in place.root.glob("*/*.safetensors") if entry_of(path).exists())


def same(store, examples, lm, close) -> None:
    """What the store holds is what the plain model computes now."""
    context = Cache(KeyValues(lm), store, examples).batch(range(len(examples)))
    fresh = lm.prefill(collate(examples, targets=False))
    seen = fresh.mask[:, None, :, None]
    assert torch.equal(context.mask, fresh.mask)
    for kept, layer in zip(context.layers, fresh.layers, strict=True):
        close(kept.key * seen, layer.key * seen)
        close(kept.value * seen, layer.value * seen)


# --- sharing and names ---


def test_a_second_run_computes_nothing(llama, examples, place, prefills, close):
    disk_store.open_or_build(place, KeyValues(llama), examples)
    first = len(prefills)
    assert first > 1 and len(shards(place)) > 1
    other = [
        examples[k] for k in (4, 2, 0, 5, 3, 3, 0)
    ]  # another seed's order and split, and rows that repeat
    store = disk_store.open_or_build(place, KeyValues(llama), other)
    assert len(prefills) == first
    same(store, other, llama, close)


def test_rows_that_are_new_are_computed_alone(llama, examples, encoded, place, prefills, close):
    disk_store.open_or_build(place, KeyValues(llama), examples)
    prefills.clear()
    more, done = [*encoded((7, 4), start=60), *examples[::-1]], []
    store = disk_store.open_or_build(
        place, KeyValues(llama), more, progress=lambda n, of: done.append((n, of))
    )
    assert sum(prefills) == 2 and done[-1] == (8, 8)
    same(store, more, llama, close)


def test_nothing_is_copied_before_a_batch_is_made(llama, examples, place):
    store = disk_store.open_or_build(place, KeyValues(llama), examples)
    name = name_of(examples[2])
    assert store.row(name)[0].data_ptr() == store.row(name)[0].data_ptr()


def test_a_row_is_named_by_its_ids_alone(encoded):
    rows = encoded((3, 3, 4))
    assert len({name_of(row) for row in [*rows, *encoded((3, 3), start=11), rows[0]]}) == 4
    rows[0].prompt, rows[0].target_ids, rows[0].input_ids = 5, (7,), list(rows[0].input_ids)
    assert name_of(rows[0]) == name_of(encoded((3,))[0])


def test_the_folder_follows_all_that_the_numbers_depend_on(new_lm, llama):
    rope = {"rope_type": "default", "rope_theta": 5e3}
    halved, nudged, retokenized = (new_lm("llama") for _ in range(3))
    halved.model.to(torch.bfloat16)
    with torch.no_grad():
        nudged.model.get_input_embeddings().weight[12, 3] += 1  # one number of one word
    retokenized.tokenizer.add_tokens(["<more>"])
    others = [new_lm("llama", seed=1), new_lm("llama", rope_parameters=rope), halved, nudged, retokenized]
    names = {KeyValues(lm, "auto").key for lm in (llama, *others)} | {KeyValues(llama, "int8").key}
    assert len(names) == 7
    assert KeyValues(new_lm("llama"), "auto").key in names  # the same model, loaded again


def test_another_format_version_is_another_cache(llama, monkeypatch):
    before = KeyValues(llama, "auto").key
    monkeypatch.setattr("softprompt.cache.keys.FORMAT", 2)
    assert KeyValues(llama, "auto").key != before


def test_the_folder_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv("SOFTPROMPT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "softprompt" / "kv"
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "mine"))
    assert CacheFolder().root == tmp_path / "mine" / "kv"


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
    disk_store.open_or_build(place, KeyValues(llama), examples)
    whole, prefills[:] = sum(prefills), []
    victim = shards(place)[1]
    DAMAGES[damage](victim)
    output: list[str] = []
    store = disk_store.open_or_build(place, KeyValues(llama), examples, say=output.append)
    assert any("damaged" in text and victim.name in text for text in output)
    assert 0 < sum(prefills) < whole  # that file alone
    same(store, examples, llama, close)
    output.clear()
    disk_store.open_or_build(place, KeyValues(llama), examples, say=output.append)
    assert not output


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": 3}', "7"])
def test_a_damaged_entry_is_written_again(llama, examples, place, close, content):
    disk_store.open_or_build(place, KeyValues(llama), examples)
    entry_of(shards(place)[0]).write_text(content)
    output: list[str] = []
    same(
        disk_store.open_or_build(place, KeyValues(llama), examples, say=output.append), examples, llama, close
    )
    assert any("damaged" in text for text in output)


def test_a_cache_that_was_copied_is_whole(llama, examples, place, prefills):
    """Other times, the same contents."""
    disk_store.open_or_build(place, KeyValues(llama), examples)
    built = len(prefills)
    for path in shards(place):
        os.utime(path, (1, 1))
    output: list[str] = []
    disk_store.open_or_build(place, KeyValues(llama), examples, say=output.append)
    assert len(prefills) == built and not output


@pytest.mark.parametrize("where", ["write_tensors", "write_text"])
def test_a_build_that_stops_goes_on(llama, examples, place, prefills, close, monkeypatch, where):
    """Stopped in its second file, or between that and its entry: the next run makes what is missing."""
    original, written = getattr(files, where), []

    def stopped(path, content):
        if written:
            path.with_name(f".{path.name}.half").write_bytes(b"half")
            os._exit(0)
        written.append(path)
        original(path, content)

    if (child := os.fork()) == 0:  # a process that ends without cleaning up
        setattr(files, where, stopped)
        disk_store.open_or_build(place, KeyValues(llama), examples)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    (kept,) = shards(place)
    folder = kept.parent
    rows = len(json.loads(entry_of(kept).read_text())["rows"])
    assert list(folder.glob(".*")) and 0 < rows < len(examples)
    same(disk_store.open_or_build(place, KeyValues(llama), examples), examples, llama, close)
    assert sum(prefills) == len(examples) - rows + len(examples)  # the latter is the batch of `same`
    assert not list(folder.glob(".*")) and len(list(folder.glob("*.safetensors"))) == len(shards(place))


@pytest.mark.process
def test_a_process_that_is_killed_leaves_nothing_half_read(model_folder, tmp_path, encoded, close):
    """A real process, killed without warning while it writes."""
    import softprompt

    place, rows = CacheFolder(tmp_path / "kv", limit=10**9), encoded(range(2, 30))
    script = f"""
import time, types, softprompt
from softprompt._system import files
from softprompt.cache import KeyValues, disk_store as disk
from softprompt.cache.folders import CacheFolder
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
disk.open_or_build(CacheFolder(Path({str(place.root)!r}), 10**9), KeyValues(lm), rows)
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
    made = shards(place)
    assert len(made) >= 1 and missing(folder, names_of(rows))
    times = {path: path.stat().st_mtime_ns for path in made}
    lm = softprompt.load(str(model_folder), dtype="float32")
    same(disk_store.open_or_build(place, KeyValues(lm), rows), rows, lm, close)
    assert not missing(folder, names_of(rows)) and {p: p.stat().st_mtime_ns for p in made} == times


# --- room ---


def used(paths: list[Path], seconds: float) -> None:
    for path in paths:
        os.utime(entry_of(path), (seconds, seconds))


def test_the_longest_unused_go_first(llama, encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_store, "BATCH_TOKENS", 100)  # one file a run
    roomy, names, stores = CacheFolder(tmp_path / "kv", limit=10**9), [], []
    for start, when in ((10, 2000), (30, 1000), (50, 3000)):
        stores.append(disk_store.open_or_build(roomy, KeyValues(llama), encoded((9, 8), start=start)))
        (new,) = set(shards(roomy)) - set(names)
        names.append(new)
        used([new], when)
    tight = CacheFolder(roomy.root, limit=3 * max(held.bytes for held in roomy.held()) + 500)
    output: list[str] = []
    disk_store.open_or_build(tight, KeyValues(llama), encoded((9, 8), start=70), say=output.append)
    assert not names[1].exists() and names[0].exists() and names[2].exists()
    assert len(output) == 1 and str(names[1]) in output[0]
    disk_store.open_or_build(
        tight, KeyValues(llama), encoded((9, 8), start=10)
    )  # it is used again, and so stays
    disk_store.open_or_build(tight, KeyValues(llama), encoded((9, 8), start=80))
    assert names[0].exists() and not names[2].exists()
    assert sum(held.bytes for held in tight.held()) <= tight.budget()
    # a reader keeps what it has mapped
    assert torch.isfinite(stores[1].row(name_of(encoded((9, 8), start=30)[0]))[0]).all()


def test_rows_of_other_runs_in_the_same_file_do_not_stay_over_budget(
    llama, encoded, tmp_path, close, monkeypatch
):
    monkeypatch.setattr(disk_store, "BATCH_TOKENS", 100)
    old, new = encoded((9, 9, 9)), encoded((9, 9), start=50)
    place = CacheFolder(tmp_path / "kv", limit=10**9)
    disk_store.open_or_build(place, KeyValues(llama), old)
    wanted = [old[0], *new]
    tight = CacheFolder(place.root, limit=place.held()[0].bytes + 500)
    same(disk_store.open_or_build(tight, KeyValues(llama), wanted), wanted, llama, close)
    assert sum(held.bytes for held in tight.held()) <= tight.budget()


def test_what_another_run_is_building_is_not_removed(tmp_path):
    place = CacheFolder(tmp_path / "kv", limit=1)
    other = place.root / "other" / "0.safetensors"
    with builder(other.parent):
        other.write_bytes(b"x" * 100)
        assert place.make_room(place.root / "mine", 1) == []
    assert place.make_room(place.root / "mine", 1) == [other] and not other.exists()


def test_the_budget_is_a_share_of_what_is_free_or_held(tmp_path, monkeypatch):
    import shutil
    from types import SimpleNamespace

    place = CacheFolder(tmp_path / "not" / "there")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert place.budget() == 400
    (place.root / "one").mkdir(parents=True)
    (place.root / "one" / "0.safetensors").write_bytes(b"x" * 500)
    assert place.budget() == 600
    assert CacheFolder(place.root, limit=7).budget() == 7


@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_full_disk_leaves_nothing_behind(llama, examples, place, monkeypatch, when):
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == when:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SoftPromptError, match="disk is full"):
        disk_store.open_or_build(place, KeyValues(llama), examples)
    assert [path.name for path in place.root.glob("*/*")] == ["lock"]


def test_two_builders_take_turns(llama, examples, place, close, tmp_path):
    """The second waits, and reads what the first has made."""
    import threading

    output: list[str] = []
    folder = place.folder(KeyValues(llama, "auto").key)
    stores = []

    def second():
        stores.append(disk_store.open_or_build(place, KeyValues(llama), examples, say=output.append))

    with builder(folder):
        thread = threading.Thread(target=second)
        thread.start()
        while not output:
            time.sleep(0.01)
        assert "waiting" in output[0] and not shards(place)
    thread.join()
    same(stores[0], examples, llama, close)
    assert not missing(folder, names_of(examples))
