"""Every reader refuses a damaged artifact with the reason; copies and old artifacts are read."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

import softprompt
from softprompt._system.files import sha256, write_tensors
from softprompt.artifacts import artifact as artifacts
from softprompt.artifacts import warm_start
from softprompt.artifacts.artifact import MANIFEST
from softprompt.artifacts.interop.kv_cache.batch import sources
from softprompt.artifacts.manifest import text_of
from softprompt.config.load import load_recipe
from softprompt.data.sources import read_rows
from softprompt.errors import SoftPromptError
from softprompt.serve.registry import Registry
from softprompt.serve.request import BrokenPrompt

ROWS = [{"input": f"sun {i}", "target": ("good", "bad")[i % 2]} for i in range(8)]
VECTORS = "prompt.safetensors"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.fixture(scope="module")
def lm(model_folder):
    return softprompt.load(str(model_folder), dtype="float32")


@pytest.fixture(scope="module")
def saved(lm, tmp_path_factory):
    """Folders of a soft prompt and of a prefix; nobody may change them."""
    found = {}
    for method in ("prompt-tuning", "prefix-tuning"):
        folder = tmp_path_factory.mktemp(method) / "out"
        softprompt.tune(
            lm, method, ROWS, task="classification", output=folder, options={"length": 2}, steps=1
        )
        found[method] = folder
    return found


@pytest.fixture
def copy(saved, tmp_path):
    def make(method: str = "prompt-tuning") -> Path:
        return Path(shutil.copytree(saved[method], tmp_path / "prompts" / "p"))

    return make


def ways_in(lm, folder: Path):
    """Every way in that reads vectors."""
    return {
        "python": lambda: softprompt.open_prompt(folder, lm).generate(["sun"]),
        "start": lambda: warm_start.vectors(str(folder), "default"),
        "compose": lambda: softprompt.scale(folder, 1.0, folder.parent.parent / "scaled", lm),
        "compile": lambda: [s.artifact.method(lm) for s in sources([folder])],
        "server": lambda: Registry(folder.parent, lm).get("p"),
    }


def refused_everywhere(lm, folder: Path, *words: str) -> None:
    for way, enter in ways_in(lm, folder).items():
        with pytest.raises((SoftPromptError, BrokenPrompt)) as caught:
            enter()
        for word in words:
            assert word in str(caught.value), way


def rewritten(folder: Path, change, name: str = VECTORS) -> None:
    """A tensor file changed, with hashes that agree: what an unlucky writer would have made."""
    from safetensors.torch import load_file

    tensors = load_file(folder / name)
    change(tensors)
    write_tensors(folder / name, tensors)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
    (folder / MANIFEST).write_text(text_of(manifest))


def test_no_byte_of_the_manifest_changes_unnoticed(saved, copy, lm):
    folder = copy()
    good = (folder / MANIFEST).read_bytes()
    draw = random.Random(0)
    last = range(len(good) - 80, len(good))  # the digest
    for place in [*draw.sample(range(len(good)), 150), *last]:
        changed = bytearray(good)
        changed[place] ^= 1 << draw.randrange(8)
        (folder / MANIFEST).write_bytes(changed)
        with pytest.raises(SoftPromptError):
            artifacts.load(folder)
    (folder / MANIFEST).write_bytes(good)
    assert softprompt.open_prompt(folder, lm).generate(["sun"])


MALFORMED = {
    "null": lambda message: message.update(prompts=None),
    "schema": lambda message: message.update(schema={}),
    "no schema": lambda message: message.pop("schema"),
    "method": lambda message: message.update(method=[1]),
    "no prompts": lambda message: message.update(prompts=[]),
    "twice": lambda message: message.update(prompts=["a", "a"]),
    "labels": lambda message: message.update(labels="good"),
    "base": lambda message: message.update(base=3),
    "mode": lambda message: message["base"].update(mode="half"),
    "dtype": lambda message: message["base"].update(dtype="int4"),
    "fingerprint": lambda message: message["base"].update(fingerprint={"weights": 3}),
    "recipe": lambda message: message["recipe"].update(train={"steps": "many"}),
    "no files": lambda message: message.update(files={}),
    "path": lambda message: message["files"].update({"../x": message["files"]["state.safetensors"]}),
    "bytes": lambda message: message["files"][VECTORS].update(bytes="8"),
    "hash": lambda message: message["files"][VECTORS].update(sha256="0"),
    "options": lambda message: message.update(options=None),
    "metrics": lambda message: message["dev"].update(metrics=[]),
}


@pytest.mark.parametrize("how", MALFORMED)
@pytest.mark.parametrize("old", [False, True])
def test_a_manifest_of_other_types_is_damaged(copy, how, old):
    folder = copy()
    message = json.loads((folder / MANIFEST).read_text())
    MALFORMED[how](message)
    (folder / MANIFEST).write_text(as_schema_1(message) if old else text_of(message))
    with pytest.raises(SoftPromptError, match="damaged"):
        artifacts.load(folder)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{}", "[]", "3", "", '{"schema": 1e999}', "\0", "1" * 10_000]
)
def test_what_is_no_manifest_at_all(copy, text):
    folder = copy()
    (folder / MANIFEST).write_text(text)
    with pytest.raises(SoftPromptError, match="damaged"):
        artifacts.load(folder)


def as_schema_1(message: dict) -> str:
    """A manifest as it was written before there was a digest."""
    old = {key: value for key, value in message.items() if key not in ("digest", "identity")}
    old["schema"] = 1 if message.get("schema") == 2 else message.get("schema")
    parts = ("config", "weights", "tokenizer")
    if isinstance(message.get("base"), dict) and "config" in message["base"]["fingerprint"]:
        old["base"] = message["base"] | {"fingerprint": {p: message["base"]["fingerprint"][p] for p in parts}}
    return json.dumps({k: v for k, v in old.items() if k != "schema" or v is not None}, indent=2)


def test_an_artifact_of_the_first_schema_is_read(copy, lm):
    folder = copy()
    whole = softprompt.open_prompt(folder, lm).generate([row["input"] for row in ROWS])
    message = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(as_schema_1(message))
    assert softprompt.open_prompt(folder, lm).generate([row["input"] for row in ROWS]) == whole
    assert Registry(folder.parent, lm).get("p")
    # a newer one whose digest was taken off is not taken for an old one
    (folder / MANIFEST).write_text(json.dumps({k: v for k, v in message.items() if k != "digest"}))
    with pytest.raises(SoftPromptError, match="digest"):
        artifacts.load(folder)


def test_copies_are_the_same_artifact(saved, tmp_path, lm):
    """Through zip, through git with Windows' line ends, by hand, and as links into a store of blobs."""
    folder = saved["prompt-tuning"]
    shutil.make_archive(str(tmp_path / "zipped"), "zip", folder)
    shutil.unpack_archive(tmp_path / "zipped.zip", tmp_path / "unzipped")
    windows = Path(shutil.copytree(folder, tmp_path / "windows"))
    for name in ("README.md", MANIFEST):
        (windows / name).write_bytes((windows / name).read_bytes().replace(b"\n", b"\r\n"))
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    (tmp_path / "whole").symlink_to(folder)
    for place in ("unzipped", "windows", "linked", "whole"):
        assert softprompt.open_prompt(tmp_path / place, lm).generate(["sun"])


@pytest.mark.parametrize("name", [MANIFEST, VECTORS, "state.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device", "link to a pipe", "folder", "socket"])
def test_only_regular_files_are_opened(copy, tmp_path, lm, name, kind, monkeypatch):
    """A pipe would be waited for for ever, a device read for ever."""
    folder = copy()
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    elif kind == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as one:
            monkeypatch.chdir(folder)  # a socket's path is short
            one.bind(name)
            monkeypatch.undo()
    elif kind == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        (folder / name).symlink_to(tmp_path / "pipe")
    else:
        (folder / name).symlink_to("/dev/zero")
    with pytest.raises(SoftPromptError):
        artifacts.load(folder)
    with pytest.raises(Exception) as caught:  # a name that is no file is not listed
        Registry(folder.parent, lm).get("p")
    assert isinstance(caught.value, (SoftPromptError, BrokenPrompt, KeyError))


def test_a_huge_file_is_not_read(copy, lm):
    folder = copy()
    with open(folder / VECTORS, "r+b") as file:
        file.truncate(2**42)  # of holes: hashing it would take hours
    refused_everywhere(lm, folder, "damaged")
    with open(folder / MANIFEST, "r+b") as file:
        file.truncate(2**42)
    with pytest.raises(SoftPromptError, match="longer than"):
        artifacts.load(folder)


@pytest.mark.parametrize("name", [MANIFEST, VECTORS, "state.safetensors"])
def test_a_pointer_of_git_lfs_says_how_to_fetch_the_file(copy, lm, name):
    folder = copy()
    (folder / name).write_bytes(LFS)
    refused_everywhere(lm, folder, f"{name} is not there yet: it is a Git LFS pointer", "git lfs pull (in ")


def test_rows_and_recipes_may_be_pointers_of_git_lfs_too(tmp_path):
    for name in ("rows.jsonl", "rows.csv", "rows.parquet", "rows.jsonl.gz"):
        (tmp_path / name).write_bytes(LFS)
        with pytest.raises(SoftPromptError, match="git lfs pull"):
            list(read_rows(tmp_path / name))
    (tmp_path / "recipe.yaml").write_bytes(LFS)
    with pytest.raises(SoftPromptError, match="git lfs pull"):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_file_that_is_not_listed_is_not_read(copy, lm):
    folder = copy()
    before = softprompt.open_prompt(folder, lm).generate([row["input"] for row in ROWS])
    os.mkfifo(folder / "base.safetensors")
    (folder / "notes.txt").write_text("mine")
    assert softprompt.open_prompt(folder, lm).generate([row["input"] for row in ROWS]) == before
    message = json.loads((folder / MANIFEST).read_text())
    del message["files"][VECTORS]
    (folder / VECTORS).write_bytes(b"not looked at")
    (folder / MANIFEST).write_text(text_of(message))
    assert (
        softprompt.open_prompt(folder, lm).generate([row["input"] for row in ROWS]) == before
    )  # of the state


SOFT = {
    "not finite": lambda t: t.update(
        {k: v.index_fill(0, torch.tensor([0]), float("nan")) for k, v in t.items()}
    ),
    "int32": lambda t: t.update({k: v.to(torch.int32) for k, v in t.items()}),
    "float64": lambda t: t.update({k: v.double() for k, v in t.items()}),
    "list of vectors": lambda t: t.update({k: v[:0] for k, v in t.items()}),
    "do not fit": lambda t: t.update({k: v[:, :5].clone() for k, v in t.items()}),
    "same length": lambda t: t.update({k: v[None] for k, v in t.items()}),
    "belongs to none": lambda t: t.update({"default/elsewhere/vectors": t.popitem()[1]}),
    "holds no vectors": lambda t: t.clear(),
}


@pytest.mark.parametrize("words", SOFT)
def test_vectors_of_no_use_are_refused(copy, lm, words):
    folder = copy()
    rewritten(folder, SOFT[words])
    ways = ways_in(lm, folder)
    if words == "holds no vectors":
        del ways["start"]  # it finds no vectors to start from, which its caller says
    for way in ways:
        if words == "do not fit" and way == "start":
            continue  # it knows no model
        with pytest.raises((SoftPromptError, BrokenPrompt)) as caught:
            ways[way]()
        assert words in str(caught.value), way


PREFIX = {
    "lacks the keys": lambda t: t.pop("default/kv_after/1/key"),
    "different shapes": lambda t: t.update(
        {"default/kv_after/0/key": t["default/kv_after/0/key"][:, :1].clone()}
    ),
    "number of layers": lambda t: t.update(layers=torch.tensor([1.5, 2.0])),
    "does not have": lambda t: t.update({"default/kv_after/77/key": t.pop("default/kv_after/0/key")}),
    "not finite": lambda t: t["default/kv_after/0/value"].fill_(float("inf")),
}


@pytest.mark.parametrize("words", PREFIX)
def test_prefixes_of_no_use_are_refused(copy, lm, words):
    folder = copy("prefix-tuning")
    rewritten(folder, PREFIX[words])
    refused_everywhere(lm, folder, words)
