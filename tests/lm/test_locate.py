"""An error says why a base cannot be loaded and what works instead; the hub is not asked for a path."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import softprompt
from softprompt.cli import main
from softprompt.config.load import load_recipe, recipe_from_dict
from softprompt.errors import SoftPromptError
from softprompt.lm.loading import load, load_tokenizer
from softprompt.lm.locate import failed


@pytest.fixture
def folder(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "model")
    return tmp_path / "model"


def fails(name):
    with pytest.raises(SoftPromptError) as caught:
        load(str(name))
    return str(caught.value)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", asked)
    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", asked)


@pytest.mark.parametrize("name", ["./nothing", "../no/thing", "/no/thing", "~/no-thing", "a/b/c", "here/"])
def test_what_looks_like_a_path_is_no_hub_id(name):
    assert "no folder /" in fails(name)


@pytest.mark.parametrize(
    ("name", "whole"),
    [("gpt2", "openai-community/gpt2"), ("gpt2-medium", "openai-community/gpt2-medium"),
     ("bert-base-uncased", "google-bert/bert-base-uncased"), ("t5-small", "google-t5/t5-small"),
     ("distilbert-base-cased", "distilbert/distilbert-base-cased"),
     ("roberta-base", "FacebookAI/roberta-base"),
     ("xlm-roberta-base", "FacebookAI/xlm-roberta-base")],
)  # fmt: skip
def test_old_names_of_the_hub(name, whole):
    assert f"model={whole}" in fails(name)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def write(name, content):
    return lambda folder: (folder / name).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


SHARDS = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}})
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
ADAPTER = json.dumps({"base_model_name_or_path": "owner/base", "peft_type": "LORA"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("tokenizer.json", "tokenizer_config.json"), "has no tokenizer .*copy tokenizer.json"),
        (remove("config.json"), "holds no model .*no config.json"),
        (remove("model.safetensors"), "has no weights"),
        (write("model.safetensors", LFS), "Git LFS pointer .*git lfs pull"),
        (write("model.safetensors", b"x" * 100), "weights are damaged"),
        (write("config.json", "{"), "is no JSON"),
        (write("config.json", '{"hidden_size": 3}'), "has no model_type"),
        (write("model.safetensors.index.json", SHARDS), "lacks 1 of its 2 files .*model-00001-of-00002"),
        (lambda f: [remove("config.json")(f), write("adapter_config.json", ADAPTER)(f)],
         "is an adapter, not a model .*changes owner/base .*model=owner/base"),
        (lambda f: [remove("config.json")(f), write("softprompt.json", '{"base": {"name": "smollm2"}}')(f)],
         "is a tuned prompt, not a model .*model=smollm2"),
        (lambda f: [remove("config.json")(f), write("tiny.gguf", b"GGUF")(f)], "model=.*tiny.gguf"),
        (lambda f: [shutil.copytree(f, f / "step-3"), remove("config.json")(f)], "model=.*step-3"),
        (lambda f: [shutil.rmtree(f), f.mkdir()], "it is empty"),
        (lambda f: [shutil.rmtree(f), f.write_text("x")], "is no folder"),
        (lambda f: [shutil.rmtree(f), f.symlink_to(f / "gone")], "leads nowhere"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_model_says_what_it_lacks(folder, change, message):
    change(folder)
    assert re.search(message, " ".join(fails(folder).split())), fails(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_every_file_of_a_model_may_be_a_pointer_of_git_lfs(folder, name):
    (folder / name).write_bytes(LFS)
    assert re.search(f"{name} is not there yet: it is a Git LFS pointer.*git lfs pull", fails(folder), re.S)


def test_weights_that_are_not_read_need_not_be_fetched(folder):
    for name in ("pytorch_model.bin", "tf_model.h5"):
        (folder / name).write_bytes(LFS)
    assert load(str(folder)).spec.hidden_size


def test_gguf_files(tmp_path):
    assert "no GGUF file" in fails(tmp_path / "a.gguf")
    (tmp_path / "a.gguf").write_bytes(LFS)
    assert "Git LFS pointer" in fails(tmp_path / "a.gguf")
    (tmp_path / "a.gguf").write_bytes(b"PK")
    assert "is no GGUF file" in fails(tmp_path / "a.gguf")


def test_code_of_a_checkpoint_is_not_run_and_nobody_is_asked(folder, monkeypatch, capfd):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('it ran')")
    assert "code of its own, which is run only if you say so" in fails(folder)
    assert "[y/N]" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("You need to install sentencepiece to use this tokenizer", "pip install sentencepiece"),
        ("`tiktoken` is required to read a `tiktoken` file", "pip install tiktoken"),
        ("You are trying to access a gated repo.\nMake sure …", "hf auth login"),
        ("We couldn't connect to 'https://huggingface.co' to load the files", "the hub was not reached"),
        ("x/y is not a local folder and is not a valid model identifier", "no model of that name"),
    ],
)
def test_what_the_hub_and_packages_say(text, message):
    assert message in str(failed("x/y", OSError(text)))


# --- where a recipe's model is ---


def test_a_folder_named_in_a_recipe_is_the_recipes(folder, tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    shutil.copytree(folder, tmp_path / "project" / "base" / "tiny")
    recipe = tmp_path / "project" / "recipe.yaml"
    recipe.write_text("model: base/tiny\ndata: rows.jsonl\n")
    monkeypatch.chdir(tmp_path)
    assert load_recipe(recipe).model.id == str(tmp_path / "project" / "base" / "tiny")
    assert load_recipe(recipe, ["model=model"]).model.id == str(folder)
    recipe.write_text("model: ./gone\ndata: rows.jsonl\n")
    assert load_recipe(recipe).model.id == str(tmp_path / "project" / "gone")
    for name in ("owner/name", "smollm2"):
        assert recipe_from_dict({"model": name, "data": {"train": "x"}}).model.id == name
    monkeypatch.chdir(tmp_path / "project")
    assert load("base/tiny").name == str(tmp_path / "project" / "base" / "tiny")
    assert load_tokenizer("base/tiny").eos_token == "<end>"


def test_an_artifact_whose_base_is_gone_names_the_folder_and_the_way(folder, tmp_path, capsys):
    rows = [{"input": f"row {i}", "target": "good"} for i in range(6)]
    how = {"steps": 1, "options": {"length": 2}, "dtype": "float32"}
    softprompt.tune(str(folder), "prompt-tuning", rows, output=str(tmp_path / "out"), **how)
    moved = folder.rename(tmp_path / "moved")
    capsys.readouterr()
    assert main(["generate", str(tmp_path / "out"), "row"]) == 1
    message = capsys.readouterr().err
    assert f"no folder {folder}" in message and "--model NAME" in message
    assert main(["generate", str(tmp_path / "out"), "row", "--model", str(moved)]) == 0
