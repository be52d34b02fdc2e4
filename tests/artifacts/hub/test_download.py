"""`hf:ID@REVISION` is an artifact wherever a folder is, and each failure on the way is one error."""

from __future__ import annotations

import json

import pytest
import torch
from huggingface_hub import constants
from tests.stand_in_hub import Repo

import softprompt
from softprompt.artifacts import artifact as artifacts
from softprompt.artifacts import compose, warm_start
from softprompt.artifacts.hub.download import folder_of
from softprompt.artifacts.manifest import text_of
from softprompt.errors import SoftPromptError
from softprompt.serve.registry import Registry


def put(hub, folder, id="me/mood", **more: bytes) -> Repo:
    """A repository with the files of a folder, and more."""
    repo = hub.repos[id] = Repo(private=False)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    repo.commit("main", files | {name.replace("__", "."): content for name, content in more.items()}, "made")
    return repo


def refused(reference: str) -> SoftPromptError:
    with pytest.raises(SoftPromptError) as error:
        artifacts.load(reference)
    return error.value


def test_only_the_files_of_an_artifact_are_fetched(hub, artifact):
    """A pickle, code and weights of a model beside them stay on the hub."""
    put(hub, artifact, pytorch_model__bin=b"pickle", model__py=b"evil()", model__safetensors=b"big")
    folder, reference = folder_of("hf:me/mood")
    assert {file.name for file in folder.iterdir()} == {
        "softprompt.json",
        "prompt.safetensors",
        "state.safetensors",
    }
    assert str(reference) == f"hf:me/mood@{folder.name}"
    assert not [request for request in hub.requests if "pytorch" in request or "model.py" in request]


def test_a_copy_in_the_cache_needs_no_hub(hub, artifact, monkeypatch):
    repo = put(hub, artifact)
    artifacts.load("hf:me/mood")
    count = len(hub.requests)
    artifacts.load(f"hf:me/mood@{repo.branches['main']}")
    assert len(hub.requests) == count  # a commit does not change: nobody is asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert artifacts.load("hf:me/mood").prompts == ("default",)
    error = refused("hf:me/other")
    assert "no copy" in error.why and "HF_HUB_OFFLINE" in error.fix
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert artifacts.load("hf:me/mood").prompts == ("default",)
    error = refused("hf:me/other")
    assert "not reached" in error.why and "connection" in error.fix


def test_a_new_commit_is_fetched_and_a_tag_stays(hub, artifact, voices):
    repo = put(hub, artifact)
    repo.tags["v1"] = repo.branches["main"]
    artifacts.load("hf:me/mood")
    repo.commit("main", {file.name: file.read_bytes() for file in voices.iterdir()}, "new")
    assert artifacts.load("hf:me/mood").prompts == ("joke", "fact")
    assert artifacts.load("hf:me/mood@v1").prompts == ("default",)


def test_a_private_one_needs_the_token(hub, artifact, monkeypatch):
    put(hub, artifact).private = True
    monkeypatch.delenv("HF_TOKEN")
    error = refused("hf:me/mood")
    assert "or it is private" in error.why and "hf auth login" in error.fix
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in_token_of_me")
    assert artifacts.load("hf:me/mood").prompts == ("default",)


def test_what_is_not_there_is_one_error(hub, artifact):
    put(hub, artifact)
    hub.repos["me/bert"] = bert = Repo(private=False)
    bert.commit("main", {"config.json": b"{}", "model.safetensors": b"x"}, "a model")
    assert "no model 'me/none'" in refused("hf:me/none").why
    assert "has no revision 'v9'" in refused("hf:me/mood@v9").why
    error = refused("hf:me/bert")
    assert error.what == "hf:me/bert is no tuned prompt" and "no softprompt.json" in error.why
    hub.broken = {"/api/models/": 503}
    assert "status 503" in refused("hf:me/mood").why


def test_damaged_files_and_newer_schemas_are_refused(hub, artifact):
    whole = json.loads((artifact / "softprompt.json").read_text())
    repo = put(hub, artifact, prompt__safetensors=(artifact / "state.safetensors").read_bytes())
    error = refused("hf:me/mood")
    assert "prompt.safetensors is damaged" in error.what and "remove the copy" in error.fix
    put(
        hub,
        artifact,
        "me/changed",
        softprompt__json=(artifact / "softprompt.json").read_bytes().replace(b'"seed": 0', b'"seed": 1'),
    )
    assert "does not match its digest" in refused("hf:me/changed").why
    put(hub, artifact, "me/newer", softprompt__json=text_of({**whole, "schema": 99}).encode())
    assert "pip install" in refused("hf:me/newer").fix
    assert repo.branches


def test_composed_of_prompts_on_the_hub(hub, voices):
    repo = put(hub, voices, "me/voices")
    sha = repo.branches["main"]
    source = compose.open_source("hf:me/voices@main:fact")
    assert source.prompt == "fact"
    assert source.record()["folder"] == f"hf:me/voices@{sha}"
    assert compose.open_source(f"{voices}:fact").record()["sha256"] == source.record()["sha256"]
    with pytest.raises(SoftPromptError, match="holds 2 prompts") as error:
        compose.open_source("hf:me/voices")
    assert f"hf:me/voices@{sha}:joke" in error.value.fix


def test_a_recipe_starts_from_a_prompt_on_the_hub(hub, artifact, model_folder, tmp_path):
    """The commit that it started from is recorded."""
    sha = put(hub, artifact).branches["main"]
    expected = warm_start.vectors(str(artifact), "default")["before"]
    rows = [{"input": f"row {i}", "target": "good"} for i in range(8)]
    method = softprompt.PromptTuning(length=3, placement="before", init="artifact", artifact="hf:me/mood")
    settings = {"steps": 1, "lr": 1e-9, "dtype": "float32", "max_new_tokens": 2}
    tuned = softprompt.tune(str(model_folder), method, rows, output=tmp_path / "run", **settings)
    start = warm_start.vectors(str(tuned.artifact.path), "default")["before"]
    assert torch.allclose(start, expected, atol=1e-6)
    about = tuned.artifact.manifest
    assert about["options"]["artifact"] == about["recipe"]["method"]["artifact"] == f"hf:me/mood@{sha}"
    assert about["identity"]["content"]["method.artifact"]


def test_a_server_serves_it_by_its_id(hub, artifact, voices, llama, model_folder):
    lm = softprompt.load(str(model_folder), dtype="float32")
    put(hub, artifact)
    put(hub, voices, "me/voices")
    registry = Registry("hf:me/mood", lm)
    assert [entry.name for entry in registry.names()] == ["me/mood"]
    assert registry.get("me/mood").tuned.artifact.prompts == ("default",)
    several = Registry("hf:me/voices@main", lm)
    assert [name for entry in several.names() for name in entry.models] == [
        "me/voices:joke",
        "me/voices:fact",
    ]
    assert several.get("me/voices:fact").index == 1
