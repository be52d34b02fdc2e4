"""Contract 8: every limit is an error that names the value, the reason and what works instead."""

from __future__ import annotations

import json

import pytest
import torch

from softprompt import methods
from softprompt._system import files
from softprompt.artifacts import artifact
from softprompt.injection import Injection
from softprompt.lm.apply import injection_for


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
    refused(lambda: artifact.load(saved.path), "has not finished", "again to resume it")
    refused(lambda: artifact.load(tmp_path / "nothing"), "no tuned prompt")


def test_truncated_tensors(saved, tmp_path, refused):
    whole = (saved.path / "state.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in (0, 4, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(lambda: files.read_tensors(path), "cut.safetensors", "damaged")
    refused(lambda: files.read_tensors(tmp_path / "absent"), "absent")


def test_plain_injection_is_no_error(llama, batch, close):
    assert torch.equal(llama.logits(batch, Injection()), llama.logits(batch))


def test_soft_tokens_cannot_be_prefilled_in_chunks(llama, all_cases, build, batch, refused):
    method = build(llama, next(c for c in all_cases if c.id == "prompt-tuning-before"))
    injection = injection_for(llama, method, batch)
    refused(lambda: llama.generate(batch, injection, prefill_chunk_size=3), "prefill_chunk_size", "prefix")


# --- families that cannot take everything ---


@pytest.mark.parametrize("family", ["mamba", "mamba2", "bloom", "falcon", "mpt"])
def test_prefixes_are_refused_where_no_attention_takes_them(lms, family, setting, refused):
    lm = lms(family)
    for name in ("prefix-tuning", "generated-prefix", "llama-adapter"):
        refused(lambda n=name: methods.build(n, setting(lm)), f"'{family}' cannot take a prefix", "interface")


def test_inputs_are_not_kept_where_keys_and_values_are_not_all(lms, batch, refused):
    for family in ("qwen3_next", "jamba", "granitemoehybrid", "mamba", "bloom", "t5", "bart"):
        lm = lms(family)
        refused(lambda m=lm: m.prefill(batch), "cannot keep its inputs' keys and values", "train.cache=off")


def test_soft_tokens_where_transformers_takes_no_embeddings(new_lm, batch, setting, refused, monkeypatch):
    lm = new_lm("llama")
    monkeypatch.setattr(lm.model, "prepare_inputs_for_generation", lambda input_ids: {})
    soft = methods.build("prompt-tuning", setting(lm))(batch.prompt_ids)
    refused(lambda: lm.generate(batch, soft, max_new_tokens=1), "cannot generate from soft tokens", "prefix")
    assert lm.logits(batch, soft).isfinite().all()  # they are trained and scored all the same


def test_decoder_placements_need_a_decoder(lms, batch, setting, refused):
    for placement in ("decoder", "both"):
        method = methods.build("prompt-tuning", setting(lms("llama")), {"placement": placement})
        refused(
            lambda m=method: lms("llama").logits(batch, m(batch.prompt_ids)), "placement=decoder", "llama"
        )


def test_stacks_that_a_model_does_not_have(lms, setting, refused):
    for stacks in ("encoder", "cross"):
        options = {"stacks": stacks, "placement": "before"}
        refused(
            lambda o=options: methods.build("prefix-tuning", setting(lms("gpt2")), o), "stacks=", "decoder"
        )
    options = {"stacks": "encoder", "placement": "after"}
    refused(
        lambda: methods.build("prefix-tuning", setting(lms("t5")), options),
        "does not see",
        "placement=before",
    )
