"""Prompts by name: found lazily, verified once, loaded again when they change, and never from elsewhere."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch

from softprompt.artifacts import artifact as artifacts
from softprompt.artifacts.manifest import text_of
from softprompt.errors import SoftPromptError
from softprompt.serve.registry import Registry
from softprompt.serve.request import BrokenPrompt, UnknownPrompt


@pytest.fixture
def registry(llama, tmp_path):
    return lambda **options: Registry(tmp_path, llama, **options)


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The files whose contents were hashed."""
    seen: list[str] = []
    own = artifacts.sha256
    monkeypatch.setattr(artifacts, "sha256", lambda path: seen.append(Path(path).name) or own(path))
    return seen


def vectors(loaded) -> torch.Tensor:
    return loaded.tuned.method.prompts[loaded.index].after.vectors


def test_names_are_paths(llama, publish, registry, tmp_path):
    for name in ("b", "team-a/support", "team-a/deep/er", "a"):
        publish(llama, tmp_path / name, seed=len(name))
    (tmp_path / "team-a/notes.txt").write_text("no prompt")
    (tmp_path / ".hidden").mkdir()
    shutil.copytree(tmp_path / "a", tmp_path / ".hidden/x")
    (tmp_path / "a/checkpoint").mkdir()  # an artifact's own folders hold no others
    shutil.copytree(tmp_path / "b", tmp_path / "a/checkpoint/b")
    found = registry()
    assert [e.name for e in found.names()] == ["a", "b", "team-a/deep/er", "team-a/support"]
    assert all(e.problem is None and e.modified > 0 for e in found.names())
    loaded = found.get("team-a/support")
    saved = artifacts.load(tmp_path / "team-a/support").method(llama)
    assert torch.equal(vectors(loaded), saved.prompts[0].after.vectors)
    assert loaded.encoder.template.input == loaded.recipe.template.input
    assert found.describe("a").prompts == ("default",)


def test_one_of_several_prompts_is_named(llama, publish, registry, tmp_path):
    publish(llama, tmp_path / "both", prompts=("joke", "a/fact"))
    found = registry()
    joke, fact = found.get("both:joke"), found.get("both:a/fact")
    assert (joke.index, fact.index) == (0, 1) and joke.fingerprint != fact.fingerprint
    assert found.describe("both").prompts == ("joke", "a/fact")
    with pytest.raises(UnknownPrompt, match="holds 2 prompts"):
        found.get("both")
    with pytest.raises(UnknownPrompt):
        found.get("both:other")


def listed(found: Registry) -> list[str]:
    return [name for entry in found.names() if entry.served for name in entry.models]


def test_what_is_listed_can_be_asked_for_and_nothing_else(llama, publish, tmp_path):
    root = tmp_path / "root"
    for name in ("one", "team/deep/er", "a\\b", "v1:final", "one/checkpoint/inner", ".hid"):
        publish(llama, root / name)
    publish(llama, root / "many", prompts=("joke", "a:b", "a/fact"))
    publish(llama, root / "of-another")
    damage(root / "of-another", "base")
    publish(llama, root / "lora")
    damage(root / "lora", "trained")
    (root / "latest").symlink_to("one")
    (root / "linked").symlink_to("team")
    for trial in ("0f3a", "9b21"):
        publish(llama, root / f"seen-compare/trials/{trial}")
        (root / f"seen-compare/trials/{trial}.json").write_text("{}")
    publish(llama, root / "trials/mine")  # a folder of one's own that is called so
    found = Registry(root, llama)
    named = ["latest", "many:joke", "many:a:b", "many:a/fact", "one", "team/deep/er", "trials/mine"]
    assert listed(found) == named
    for name in named:
        assert found.get(name).name == name and found.holds(name)
    unlisted = ("many", "a\\b", "v1:final", "one/checkpoint/inner", "linked/deep/er", ".hid")
    for name in (*unlisted, "seen-compare/trials/0f3a", "root", "of-another", "lora"):
        with pytest.raises((UnknownPrompt, BrokenPrompt)):
            found.get(name)
    trials = ["seen-compare/trials/0f3a", "seen-compare/trials/9b21"]
    asked = Registry(root, llama, trials=True)
    assert listed(asked) == sorted([*named, *trials], key=lambda n: n.partition(":")[0])
    assert asked.get(trials[0])
    assert listed(Registry(root / "seen-compare/trials", llama)) == ["0f3a", "9b21"]


def test_an_artifact_is_served_under_its_own_name(llama, publish, tmp_path):
    found = Registry(tmp_path / ".", llama)
    assert listed(found) == []
    publish(llama, tmp_path / "voices", prompts=("calm", "pirate"))
    (tmp_path / "latest").symlink_to("voices")
    found = Registry(tmp_path / "voices", llama)
    assert listed(found) == ["voices:calm", "voices:pirate"]
    assert found.get("voices:pirate").index == 1 and found.describe("voices").prompts == ("calm", "pirate")
    for name in ("", ".", "voices/voices", "latest:calm", "pirate"):
        with pytest.raises(UnknownPrompt):
            found.get(name)
    assert listed(Registry(tmp_path / "latest", llama)) == ["latest:calm", "latest:pirate"]
    late = Registry(publish(llama, tmp_path / "empty/x").parent, llama)
    shutil.rmtree(tmp_path / "empty/x")
    assert listed(late) == []
    publish(llama, tmp_path / "empty")  # trained while the server runs
    assert listed(late) == ["empty"] and late.get("empty")
    publish(llama, tmp_path / "v1:final")
    assert listed(Registry(tmp_path / "v1:final", llama)) == []


def test_accents_are_found_however_they_are_written(llama, publish, tmp_path):
    short, long = "th\u00e9", "the\u0301"  # the same to a reader; macOS writes the second
    publish(llama, tmp_path / f"a/{long}/x", prompts=(long, "b"))
    found = Registry(tmp_path / "a", llama)
    assert found.get(f"{short}/x:{short}").index == found.get(f"{long}/x:{long}").index == 0
    assert listed(found) == [f"{long}/x:{long}", f"{long}/x:b"]
    assert found.get(f"{short}/x:b").index == 1 and not found.holds("the/x")
    keys = pytest.importorskip("softprompt.serve.http.keys", reason="pip install softprompt[serve]")
    assert keys.Key(name="k", sha256="0" * 64, prompts=(f"{short}/*",)).allows(f"{long}/x")
    publish(llama, tmp_path / f"a/{short}/x", seed=1, prompts=(long, "b"))  # each by its exact name
    assert found.get(f"{short}/x:b").fingerprint != found.get(f"{long}/x:b").fingerprint
    assert Registry(tmp_path / f"a/{long}/x", llama).holds("x:b")


def test_a_repaired_one_is_listed_again(llama, publish, registry, tmp_path):
    publish(llama, tmp_path / "p", seed=1)
    found = registry()
    damage(tmp_path / "p", "flipped")
    with pytest.raises(BrokenPrompt):
        found.get("p")
    assert listed(found) == []
    publish(llama, tmp_path / "p", seed=2)
    assert listed(found) == ["p"]
    found.get("p")
    damage(tmp_path / "p", "flipped")
    assert found.get("p") and listed(found) == ["p"]  # the last good version


OUTSIDE = (
    "",
    "/",
    ".",
    "..",
    "../out",
    "in/../../out",
    "in/..",
    "//in",
    "/in",
    "in/",
    "in//x",
    "./in",
    ".in",
)


@pytest.mark.parametrize(
    "name", [*OUTSIDE, "in\\..\\out", "in\0", "x" * 5000, "link", "loop", "nothing", "in:x:y"]
)
def test_no_name_leads_outside(name, llama, publish, tmp_path):
    publish(llama, tmp_path / "root/in")
    publish(llama, tmp_path / "out")
    publish(llama, tmp_path / "root/.in")
    (tmp_path / "root/link").symlink_to(tmp_path / "out")
    (tmp_path / "root/loop").symlink_to(tmp_path / "root/loop")
    found = Registry(tmp_path / "root", llama)
    assert [e.name for e in found.names()] == ["in"]
    with pytest.raises(UnknownPrompt):
        found.get(name)


def test_a_link_inside_names_a_version(llama, publish, registry, tmp_path):
    publish(llama, tmp_path / "v1", seed=1)
    publish(llama, tmp_path / "v2", seed=2)
    link = tmp_path / "latest"
    link.symlink_to("v1")
    found = registry()
    assert [e.name for e in found.names()] == ["latest", "v1", "v2"]
    assert found.get("latest").fingerprint == found.get("v1").fingerprint
    link.unlink()
    link.symlink_to("v2")
    assert found.get("latest").fingerprint == found.get("v2").fingerprint != found.get("v1").fingerprint


def test_contents_are_hashed_once_and_loaded_when_asked_for(llama, publish, registry, tmp_path, hashed):
    for i in range(4):
        publish(llama, tmp_path / f"p{i}", seed=i)
    hashed.clear()
    found = registry()
    assert len(list(found.names())) == 4 and not hashed
    size = found.get("p0").bytes
    once = len(hashed)
    assert once > 0 and found.bytes == size > 0
    small = registry(max_bytes=2 * size)
    hashed.clear()
    first = small.get("p0")
    assert small.get("p0").tuned is first.tuned
    for i in (1, 2, 3):
        small.get(f"p{i}")
        assert small.bytes <= 2 * size
    assert len(hashed) == 4 * once
    again = small.get("p0")
    assert again.tuned is not first.tuned  # it was let go of, and loaded again
    assert torch.equal(vectors(again), vectors(first)) and len(hashed) == 4 * once


def test_more_than_fits_is_served_all_the_same(llama, publish, registry, tmp_path):
    publish(llama, tmp_path / "p")
    found = registry(max_bytes=10)
    assert found.get("p").bytes > 10 and found.bytes == 0


def test_a_new_version_is_loaded_and_the_old_one_stays_whole(llama, publish, registry, tmp_path, hashed):
    publish(llama, tmp_path / "p", seed=1)
    found = registry()
    old = found.get("p")
    kept = vectors(old).clone()
    publish(llama, tmp_path / "p", seed=2)
    new = found.get("p")
    assert new.fingerprint != old.fingerprint and not torch.equal(vectors(new), kept)
    assert torch.equal(vectors(old), kept)
    # overwritten in place, which no artifact's writer does, but a copying person may
    file = tmp_path / "p/prompt.safetensors"
    kept = vectors(new).clone()
    data = file.read_bytes()
    with open(file, "r+b") as f:
        f.write(data[:-64] + bytes(64))
    assert torch.equal(vectors(new), kept)


def damage(folder: Path, how: str) -> None:
    file, manifest = folder / "prompt.safetensors", folder / "softprompt.json"
    if how == "flipped":
        data = bytearray(file.read_bytes())
        data[-3] ^= 255
        file.write_bytes(bytes(data))
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif how == "missing":
        file.unlink()
    elif how == "manifest":
        manifest.write_text("{")
    elif how == "base":
        output = json.loads(manifest.read_text())
        output["base"]["fingerprint"]["weights"] = "0" * 16
        manifest.write_text(text_of(output))
    elif how == "trained":
        output = json.loads(manifest.read_text())
        output["base"]["mode"] = "lora"
        manifest.write_text(text_of(output))
    elif how == "incomplete":
        output = json.loads(manifest.read_text())
        del output["recipe"]
        manifest.write_text(text_of(output))


HOW = ("flipped", "cut", "missing", "manifest", "base", "trained", "incomplete")


@pytest.mark.parametrize("how", HOW)
def test_a_broken_one_is_reported_and_the_others_serve_on(how, llama, publish, registry, tmp_path, hashed):
    for i, name in enumerate(("good", "bad")):
        publish(llama, tmp_path / name, seed=i)
    damage(tmp_path / "bad", how)
    found = registry()
    with pytest.raises(BrokenPrompt) as caught:
        found.get("bad")
    assert caught.value.why
    hashed.clear()
    with pytest.raises(BrokenPrompt):  # known to be broken: not read again until it changes
        found.get("bad")
    assert not hashed
    assert found.get("good")
    problems = {e.name: e.problem for e in found.names()}
    assert problems["good"] is None and problems["bad"]
    assert found.describe("bad").problem
    publish(llama, tmp_path / "bad", seed=1)
    assert found.get("bad") and found.describe("bad").problem is None


@pytest.mark.parametrize("how", HOW)
def test_the_last_good_version_is_served_while_the_new_one_is_broken(how, llama, publish, registry, tmp_path):
    publish(llama, tmp_path / "p", seed=1)
    found = registry()
    good = found.get("p")
    damage(tmp_path / "p", how)
    assert found.get("p").tuned is good.tuned
    assert found.describe("p").problem
    publish(llama, tmp_path / "p", seed=2)
    assert found.get("p").fingerprint != good.fingerprint


def test_a_removed_one_is_gone(llama, publish, registry, tmp_path):
    publish(llama, tmp_path / "p")
    found = registry()
    found.get("p")
    shutil.rmtree(tmp_path / "p")
    with pytest.raises(UnknownPrompt):
        found.get("p")
    assert list(found.names()) == []


def test_versions_that_change_all_the_time_are_never_mixed(llama, publish, registry, tmp_path):
    """One thread writes versions, others read: what they get is one of them, whole."""
    versions = []
    for seed in range(3):
        publish(llama, tmp_path / f"keep/{seed}", seed=seed, prompts=("a", "b"))
        versions.append(artifacts.load(tmp_path / f"keep/{seed}").method(llama).prompts)
    shutil.copytree(tmp_path / "keep/0", tmp_path / "p")
    found, done, wrong = registry(), threading.Event(), []

    def write():
        for i in itertools.cycle(range(3)):
            if done.is_set():
                return
            for name in ("prompt.safetensors", "state.safetensors", "softprompt.json"):
                shutil.copy(tmp_path / f"keep/{i}/{name}", tmp_path / f"p/.{name}")
                (tmp_path / f"p/.{name}").replace(tmp_path / f"p/{name}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(60):
            try:
                loaded = found.get("p:a")
            except BrokenPrompt:  # nothing whole was seen yet
                continue
            prompts = loaded.tuned.method.prompts
            whole = [
                all(torch.equal(a.after.vectors, b.after.vectors) for a, b in zip(prompts, v, strict=True))
                for v in versions
            ]
            if sum(whole) != 1:
                wrong.append(whole)
    finally:
        done.set()
        writer.join()
    assert not wrong


def test_very_many_are_listed_and_served_without_a_slow_start(llama, publish, tmp_path, monkeypatch):
    """Nothing is opened to list them, and one is served before any is listed."""
    template = publish(llama, tmp_path / "template")
    manifest = (template / "softprompt.json").read_bytes()
    root = tmp_path / "root"
    for i in range(2000):
        folder = root / f"team{i % 20}/task{i}"
        folder.mkdir(parents=True)
        (folder / "softprompt.json").write_bytes(manifest)
    shutil.copytree(template, root / "team3/real")
    scanned = []
    own = __import__("os").scandir
    monkeypatch.setattr(
        "softprompt.serve.registry.os.scandir", lambda path: scanned.append(path) or own(path)
    )
    found = Registry(root, llama)
    assert found.get("team3/real") and not scanned
    first = list(itertools.islice(found.names(), 3))
    assert len(first) == 3 and len(scanned) <= 2
    with monkeypatch.context() as patched:
        patched.setattr(artifacts, "load", lambda *_, **__: pytest.fail("opened"))
        assert sum(1 for _ in found.names()) == 2001


def test_a_folder_that_is_not_there(llama, tmp_path):
    with pytest.raises(SoftPromptError, match="no folder"):
        Registry(tmp_path / "nothing", llama)
